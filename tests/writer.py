"""One process that writes.

Three images go to OUT by all ranks together, with PAUSE seconds after each unit and ten times that
after each piece of a level. REPORT gets the files that this process made.
"""

from __future__ import annotations

import json
import time

from written import OPTIONS, SOURCES, make_images, make_store, units, write_unit

from gpu_patch.predict.outputs.ome_zarr.unfinished import UnfinishedImage


def main(out, report, rank, world_size, pause, resume):
    from zarr.storage import LocalStore

    made = []
    put = LocalStore.set

    async def counted(store, key, *arguments, **options):
        made.append(f"{store.root}/{key}")
        return await put(store, key, *arguments, **options)

    LocalStore.set = counted
    alive = UnfinishedImage.alive

    def slow(work):
        alive(work)
        time.sleep(10 * pause)

    UnfinishedImage.alive = slow
    where = {"rank": rank, "world_size": world_size, "resume": resume, "timeout": 60.0}
    store = make_store(out, SOURCES, **OPTIONS, **where)
    predictions = make_images(store.names)
    left = [
        (name, unit)
        for name, predicted in predictions.items()
        if not store.finished(name)
        for unit in units(store, predicted)
        if unit[:2] not in store.done(name)
    ]
    share = -(-len(left) // world_size)
    mine = left[rank * share : (rank + 1) * share]
    unfinished = [name for name in predictions if not store.finished(name)]
    complete = set(unfinished) - {name for name, _ in left}
    for name in unfinished:
        chosen = [unit for image, unit in mine if image == name]
        if not chosen and not (rank == 0 and name in complete):
            continue
        output = store.open(predictions[name])
        for unit in chosen:
            write_unit(output, predictions[name], unit, seed=rank)
            time.sleep(pause)
        output.finish()
    store.wait()
    report.write_text(json.dumps({"made": made, "n_units": len(mine)}))
