"""Compile every kernel for a Hopper GPU, as the wrappers would have it compiled; write their names. Needs no GPU.

The wrappers are called on the CPU with a recorder in the place of each kernel. It compiles what would be launched, for
the argument types and hints (divisible by 16, equal to 1) that Triton would choose, and launches nothing.
"""

import sys

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from sae_tutorial.allocation.kernels import floors, products, selection

POINTERS = {torch.int32: "*i32", torch.int16: "*i16", torch.int64: "*i64"}
POINTERS |= {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16"}
HOPPER = GPUTarget("cuda", 90, 32)


class Recorder:
    def __init__(self, kernel):
        self.kernel = kernel

    def __getitem__(self, grid):
        return self.compile

    def compile(self, *args, num_warps=4, **constants):
        signature, hints = {}, {}
        for i, (name, value) in enumerate(zip(self.kernel.arg_names, [*args, *constants.values()])):
            if i >= len(args) or (isinstance(value, int) and value == 1):
                name = name if i < len(args) else list(constants)[i - len(args)]
                signature[name], constants[name] = "constexpr", value
                continue
            signature[name] = POINTERS[value.dtype] if isinstance(value, torch.Tensor) else "i32"
            if isinstance(value, torch.Tensor) or value % 16 == 0:
                hints[(i,)] = [["tt.divisibility", 16]]
        source = ASTSource(fn=self.kernel, signature=signature, constexprs=constants, attrs=hints)
        if triton.compile(source, target=HOPPER, options={"num_warps": num_warps}).asm["cubin"]:
            sys.stdout.write(self.kernel.__name__ + "\n")


for module in (floors, selection, products):
    for name, kernel in list(vars(module).items()):
        if isinstance(kernel, triton.JITFunction) and name not in ("_key", "_ones"):  # those two are called by kernels
            setattr(module, name, Recorder(kernel))

cumsum = torch.Tensor.cumsum
torch.Tensor.cumsum = lambda self, dim: cumsum(torch.zeros_like(self), dim)  # counts that were never written
for dtype in (torch.float32, torch.bfloat16):
    z, values = torch.rand(1024, 4096).to(dtype), torch.rand(5000).to(dtype)
    for dim in (0, 1):
        floors.line_floors(z, torch.full((z.shape[1 - dim],), 300), dim)
    for shape in ((1, 1), (1, 4096), (1024, 1)):
        selection.compact(z, z.new_ones(shape))
    selection.kth_largest(values, 9)
    selection.strongest_in_each(values, torch.arange(5000) // 50, 100, 9)
    matches, W = torch.zeros(5000, dtype=torch.int64), torch.rand(100, 768).to(dtype)
    products.sum_rows(values, matches, torch.arange(0, 5001, 50), W)
    products.dots(W, W, matches, matches)
