#!/usr/bin/env python3
"""Compiles the kernels ahead of time, so that neither a build nor a user needs CUDA's toolkit.

    pip install nvidia-cuda-nvrtc-cu12==12.8.93
    python3 crates/cuda/kernels/build.py            # writes crates/cuda/kernels/compiled/*.bin
    python3 crates/cuda/kernels/build.py --check    # compiles and compares with what is there
    python3 crates/cuda/kernels/build.py --check --arch sm_90a

The same source and compiler give the same machine code. A file has all modules of an architecture:

    "RTCUDA1\\n", u32 number of modules; of each u32 length of its name, name, u32 bytes, u32 packed bytes; then the modules,
    each packed with deflate (zlib's container).
"""

import argparse
import ctypes
import pathlib
import struct
import sys
import zlib

HERE = pathlib.Path(__file__).resolve().parent
# Drivers from CUDA 12.0 on take its machine code.
VERSION = (12, 8)
FORMATS = sorted(path.stem for path in (HERE / "formats").glob("*.cuh"))
# The last is for cards that none of the others runs on: the driver compiles it.
ARCHS = ["sm_80", "sm_89", "sm_90a", "sm_120", "compute_80"]


def nvrtc():
    for path in sys.path:
        file = pathlib.Path(path) / "nvidia/cuda_nvrtc/lib/libnvrtc.so.12"
        if file.exists():
            # It looks for this one by its bare name.
            ctypes.CDLL(str(file.with_name("libnvrtc-builtins.so.%d.%d" % VERSION)), mode=ctypes.RTLD_GLOBAL)
            library = ctypes.CDLL(str(file))
            major, minor = ctypes.c_int(), ctypes.c_int()
            library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
            if (major.value, minor.value) != VERSION:
                sys.exit(f"nvrtc: expected {VERSION}, found {(major.value, minor.value)}")
            return library
    sys.exit("nvrtc: not found\nhint: pip install nvidia-cuda-nvrtc-cu12==12.8.93")


def text_of(library, program, what):
    size = ctypes.c_size_t()
    getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    text = ctypes.create_string_buffer(size.value)
    getattr(library, f"nvrtcGet{what}")(program, text)
    return text.raw


def compile_module(library, source, arch, defines, verbose):
    headers = sorted(path for path in HERE.rglob("*.cuh"))
    names = [str(path.relative_to(HERE)) for path in headers]
    texts = [path.read_bytes() for path in headers]
    program = ctypes.c_void_p()
    library.nvrtcCreateProgram(
        ctypes.byref(program),
        (HERE / source).read_bytes(),
        source.encode(),
        len(headers),
        (ctypes.c_char_p * len(headers))(*texts),
        (ctypes.c_char_p * len(headers))(*[name.encode() for name in names]),
    )
    # No contraction that the source does not ask for: one order and one rounding in every kernel.
    options = [f"--gpu-architecture={arch}", "--std=c++17", "--fmad=false", "-default-device"] + defines
    if verbose:
        options.append("--ptxas-options=-v")
    status = library.nvrtcCompileProgram(
        program, len(options), (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
    )
    log = text_of(library, program, "ProgramLog").rstrip(b"\0").decode()
    if status != 0:
        sys.exit(f"{source} {arch} {defines}:\n{log}")
    if verbose and log:
        print(f"== {source} {arch} {defines}\n{log}")
    image = text_of(library, program, "PTX" if arch.startswith("compute") else "CUBIN")
    library.nvrtcDestroyProgram(ctypes.byref(program))
    return image


def bundle(library, arch, verbose=False, only=None):
    modules = [(name, f"{name}.cu", []) for name in ("rows", "attention", "group")]
    modules += [(name, "products.cu", [f'-DFORMAT="formats/{name}.cuh"']) for name in FORMATS]
    index, data = b"", b""
    for name, source, defines in modules:
        if only and name not in only:
            continue
        image = compile_module(library, source, arch, defines, verbose)
        packed = zlib.compress(image, 9)
        index += struct.pack("<I", len(name)) + name.encode() + struct.pack("<II", len(image), len(packed))
        data += packed
    return b"RTCUDA1\n" + struct.pack("<I", len(modules)) + index + data


def images(file):
    """The modules of a file by name, unpacked: how they are packed depends on the version of zlib."""
    at, found, entries = 12, {}, []
    for _ in range(struct.unpack_from("<I", file, 8)[0]):
        (length,) = struct.unpack_from("<I", file, at)
        name = file[at + 4 : at + 4 + length].decode()
        _, packed = struct.unpack_from("<II", file, at + 4 + length)
        at += 12 + length
        entries.append((name, packed))
    for name, packed in entries:
        found[name] = zlib.decompress(file[at : at + packed])
        at += packed
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    parser.add_argument("--arch", action="append", choices=ARCHS, help="these alone")
    parser.add_argument("--module", action="append", help="print the compiler's report on these modules, write nothing")
    args = parser.parse_args()
    library = nvrtc()
    failed = []
    for arch in args.arch or ARCHS:
        path = HERE / "compiled" / f"{arch}.bin"
        made = bundle(library, arch, bool(args.module), args.module)
        if args.module:
            continue
        if args.check:
            if not path.exists() or images(path.read_bytes()) != images(made):
                failed.append(path.name)
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(made)
        print(f"{path.name}: {len(made)} bytes")
    if failed:
        sys.exit(f"not what the source compiles to: {', '.join(failed)}\nhint: run crates/cuda/kernels/build.py")


if __name__ == "__main__":
    main()
