"""The CUDA kernels of satnp on the CPU: their own sources, compiled by g++, the threads of a block as fibers.

Threads run one after another to their next shuffle, always in the same order, so a number read before it was written comes
out as the same wrong one each time. What is not here: memory that several threads of a GPU write to at once, alignment,
limits of a launch, and its own tanh and exp. Use small arrays.
"""

import ctypes
import re
import subprocess

import numpy as np

from satnp.arrays.formulas import PREAMBLE
from satnp.arrays.kernels import HEAD, THREADS

FIBERS = """
#include <cmath>
#include <ucontext.h>
#include <vector>
using std::exp; using std::expm1; using std::log; using std::log1p; using std::sqrt; using std::tanh;
#define __global__
#define __device__
struct Index { unsigned x; };
static Index threadIdx, blockIdx, blockDim;
static ucontext_t scheduler, fibers[1024];
static bool ended[1024];
static double given[1024];
static void (*body)(void*);
static void* argument;
static void wait() { swapcontext(&fibers[threadIdx.x], &scheduler); }
template<typename N> N __shfl_xor_sync(unsigned, N x, int far)
{
    given[threadIdx.x] = x; wait();
    N found = (N)given[threadIdx.x ^ far]; wait();
    return found;
}
static void fiber() { body(argument); ended[threadIdx.x] = true; }
template<typename Work> void launch(unsigned blocks, unsigned threads, Work work)
{
    const size_t stack = 1 << 15;
    static std::vector<char> stacks(stack * 1024);
    argument = &work; body = [](void* it) { (*(Work*)it)(); };
    blockDim.x = threads;
    for (blockIdx.x = 0; blockIdx.x < blocks; blockIdx.x++) {
        for (unsigned t = 0; t < threads; t++) {
            getcontext(&fibers[t]); ended[t] = false;
            fibers[t].uc_stack.ss_sp = &stacks[stack * t]; fibers[t].uc_stack.ss_size = stack;
            fibers[t].uc_link = &scheduler;
            makecontext(&fibers[t], fiber, 0);
        }
        for (bool alive = true; alive;) {
            alive = false;
            for (unsigned t = 0; t < threads; t++) if (!ended[t]) {
                threadIdx.x = t; swapcontext(&scheduler, &fibers[t]); alive |= !ended[t];
            }
        }
    }
}
"""


def build(folder, formulas, kernels):
    """A library of elementwise formulas and of kernels by hand, in float32."""
    parts = [FIBERS, PREAMBLE, *map(_elementwise, formulas), "typedef float T;", HEAD, *map(_by_hand, kernels)]
    source, library = folder / "kernels.cpp", folder / "kernels.so"
    source.write_text("\n".join(parts))
    command = ["g++", "-std=c++17", "-O1", "-ffp-contract=off", "-shared", "-fPIC", source, "-o", library]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(library)


def _elementwise(formula):
    kernel = formula.kernel
    inputs = "".join(f"const T {x} = in[{k}][j]; " for k, x in enumerate(kernel.inputs))
    outputs = "".join(f"T& {x} = out[{k}][j]; " for k, x in enumerate(kernel.outputs))
    return (
        f'extern "C" void each_{kernel.name}(long n, const float** in, float** out)\n'
        f"{{ typedef float T; for (long j = 0; j < n; j++) {{ {inputs}{outputs}\n{kernel.body} }} }}\n"
    )


def _by_hand(kernel):
    given = re.search(rf"void {kernel.__name__}\((.*?)\)", kernel.source, re.S)[1].split(",")
    kinds = [x.rsplit(maxsplit=1)[0].strip() for x in given]
    arrays = [f"({kind})arrays[{k}]" for k, kind in enumerate(kind for kind in kinds if "*" in kind)]
    sizes = [f"sizes[{k}]" for k in range(len(kinds) - len(arrays))]
    return kernel.source + (
        f'extern "C" void run_{kernel.__name__}(unsigned blocks, unsigned threads, void** arrays, int* sizes)\n'
        f"{{ launch(blocks, threads, [=] {{ {kernel.__name__}({', '.join(arrays + sizes)}); }}); }}\n"
    )


def run_elementwise(library, formula, arrays):
    """What the formula's kernel makes of float32 arrays of one shape."""
    outs = [np.full(arrays[0].shape, np.nan, np.float32) for _ in formula.kernel.outputs]
    getattr(library, f"each_{formula.kernel.name}")(ctypes.c_long(arrays[0].size), _pointers(arrays), _pointers(outs))
    return outs


def run_by_hand(library, kernel, args):
    """What the kernel makes of its arguments, float32 and int64 arrays in C order, and numbers."""
    arrays = [x for x in args if isinstance(x, np.ndarray)]
    outs = [np.full(shape, np.nan, np.float32) for shape in kernel.outputs(*args)]
    sizes = (ctypes.c_int * 8)(*kernel.sizes(*args))
    blocks = -(-kernel.threads(*args) // THREADS)
    getattr(library, f"run_{kernel.__name__}")(blocks, THREADS, _pointers([*arrays, *outs]), sizes)
    return outs


def _pointers(arrays):
    return (ctypes.c_void_p * len(arrays))(*(x.ctypes.data for x in arrays))
