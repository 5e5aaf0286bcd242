"""What folders of predictions hold, byte by byte."""

import re

_UUID = re.compile(rb"urn:uuid:[0-9a-f-]{36}")


def contents(folder):
    """The bytes of every file; TIFF without what is at random in it."""
    return {
        str(file.relative_to(folder)): _UUID.sub(b"", file.read_bytes())
        for file in folder.rglob("*")
        if file.is_file()
    }


def parts(found):
    """Files by the result that they are of, without hidden ones."""
    of_result = {}
    for name, data in found.items():
        of_result.setdefault(name.partition("/")[0], {})[name] = data
    return {name: files for name, files in of_result.items() if name[0] != "."}
