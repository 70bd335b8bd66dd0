"""CUDA files as C++ that any compiler takes, for device.h. Mechanical: no file needs to know of it."""

import re

# kernel<<<grid, block, bytes, stream>>>( -- the kernel's own template arguments may come before.
LAUNCH = re.compile(r"<<<(.*?)>>>\s*\(", re.S)
SHARED = re.compile(
    r"__shared__\s+(?:(?:__align__|alignas)\((?P<align>\w+)\)\s*)?"
    r"(?P<type>[^;\[\]]+?)\s+(?P<name>\w+)(?P<sizes>(?:\[[^\]]+\])*);"
)
# In every file. An emulated tensor lies on the CPU, and takes the branch that is CUDA's.
WORDS = {
    "__CUDA_ARCH__": "CUDA_ON_HOST_ARCH",
    "__CUDACC__": "CUDA_ON_HOST_COMPILER",
    "is_cuda": "is_cpu",
    "is_cpu": "is_cuda",
}


def kernel_before(text, end):
    """Where the kernel's name, with its template arguments, begins that ends at `end`."""
    start = len(text[:end].rstrip())
    if text[start - 1] == ">":
        depth = 0
        while True:
            start -= 1
            depth += (text[start] == ">") - (text[start] == "<")
            if depth == 0:
                break
    return start - len(re.search(r"[\w:]*\s*$", text[:start])[0])


def rewrite_launches(text):
    while match := LAUNCH.search(text):
        start = kernel_before(text, match.start())
        kernel = text[start : match.start()].strip()
        name = re.match(r"[\w:]+", kernel)[0]
        call = f'::cuda_on_host::Launch("{name}", {match[1]})'
        call += f".run([&](const auto&... a_) {{ {kernel}(a_...); }}, "
        text = text[:start] + call + text[match.end() :]
    return text


def rewrite_shared(match):
    kind = match["type"] + match["sizes"]
    if match["sizes"]:
        # The type of an array of any other type, also one with parentheses or stars in it.
        kind = f"std::type_identity_t<{match['type']}>{match['sizes']}"
    return (
        f"auto& {match['name']} = ::cuda_on_host::shared<{kind}>"
        f'([] {{}}, {match["align"] or 0}, "{match["name"]}");'
    )


def rewrite(text, name):
    """`name` is the file's in messages; those ending in .cu and .cuh hold kernels."""
    if name.endswith((".cu", ".cuh")):
        if re.search(r"extern\s+__shared__", text):
            raise ValueError(f"{name}: the emulation has no extern __shared__ memory")
        text = SHARED.sub(rewrite_shared, rewrite_launches(text))
        text = re.sub(r"(TORCH_LIBRARY_IMPL\(\w+,) CUDA,", r"\1 CPU,", text)
        for left in ("<<<", "__shared__"):
            if left in re.sub(r"//.*", "", text):
                raise ValueError(
                    f"{name}: {left} is written in a way that rewrite.py does not know"
                )
    words = re.compile(rf"\b({'|'.join(WORDS)})\b")
    return f'#line 1 "{name}"\n' + words.sub(lambda match: WORDS[match[1]], text)
