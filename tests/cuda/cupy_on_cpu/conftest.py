# scripts, and what only works where CuPy is
collect_ignore = ["build_extensions.py", "host_times.py", "on_cpu.py"]
