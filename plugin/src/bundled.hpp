// Models inside the plug-in; `make` writes their bytes to bundled.cpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace tonewood {

struct BundledFile {
    const std::uint8_t* bytes;
    std::size_t size;
};

extern const std::vector<BundledFile> bundled_files;

}  // namespace tonewood
