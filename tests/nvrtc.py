"""CUDA sources compiled for a GPU by NVIDIA's own compiler, with no GPU and no driver: the wheel nvidia-cuda-nvrtc."""

import ctypes
from importlib.metadata import PackageNotFoundError, files

PACKAGES = ("nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12")


def find():
    """The library, or None where no wheel of it is installed."""
    for package in PACKAGES:
        try:
            found = [path.locate() for path in files(package) if path.name.startswith("libnvrtc.so")]
        except PackageNotFoundError:
            continue
        return ctypes.CDLL(str(found[0]), mode=ctypes.RTLD_GLOBAL)
    return None


def compiled(library, source, *options):
    """(whether it compiles, what the compiler said)"""
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None)
    options = [option.encode() for option in options]
    status = library.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    library.nvrtcGetProgramLog(program, log)
    library.nvrtcDestroyProgram(ctypes.byref(program))
    return status == 0, log.value.decode()
