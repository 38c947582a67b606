"""Write plug-in model files as C++ source: python scripts/embed_models.py FILE... > bundled.cpp."""

import sys
from pathlib import Path

names = []
print('#include "bundled.hpp"\n\nnamespace tonewood {\n')
for number, path in enumerate(map(Path, sys.argv[1:])):
    content = path.read_bytes()
    names.append(f"{{file_{number}, sizeof file_{number}}}")
    print(f"static const std::uint8_t file_{number}[] = {{")
    for start in range(0, len(content), 32):
        print("".join(f"{byte}," for byte in content[start : start + 32]))
    print("};\n")
print(f"const std::vector<BundledFile> bundled_files{{{', '.join(names)}}};\n\n}}  // namespace tonewood")
