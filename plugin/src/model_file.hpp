// Model file of the plug-in, written by `tonewood export --plugin`; its bytes: export/plugin_file.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace tonewood {

using Floats = std::vector<float>;

// A file that is not a plug-in file, is damaged, or has another version.
struct ModelFileError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// One layer; the output channel is the fastest axis of the weights, so that loops over it vectorise.
struct Layer {
    Floats weight;  // [tap, input, output]
    Floats bias;    // [output]
};

struct Model {
    unsigned rate, window, hop, fft;  // of the analysis: Hz, samples
    unsigned rows, width, kernel, depth, lookahead;
    float floor_db, level_seconds;
    float amounts[2], loudness_db[2];  // loudness that masks add to the source folder, at each amount
    Floats row_hz;                     // [row]
    Floats filterbank;                 // [row, bin]
    Floats loudness_weight;            // [row], factor of power
    Floats row_mean, static_db;        // [row], dB
    Layer first, last;
    std::vector<Layer> middle;
    std::string name, licence;

    unsigned bins() const { return fft / 2 + 1; }
    float top_hz() const { return float(rate) / 2; }
};

// Read a model; ModelFileError if the bytes are not a valid file.
Model parse_model(const std::uint8_t* bytes, std::size_t size);
Model load_model(const std::string& path);

}  // namespace tonewood
