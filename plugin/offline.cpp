// Processes raw audio with the plug-in's engine, block by block, for tests and measurements.
//
//   offline MODEL RATE CHANNELS < input > output
//
// Both are float32, channels interleaved. Each line of the file named by --blocks says how to process the
// next samples: count amount low_hz high_hz smooth_octaves mid_side freeze, or "reset".
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <sstream>

#include "src/stream.hpp"

using namespace tonewood;

namespace {

struct Block {
    std::size_t count = 0;  // 0 to reset the stream
    Controls controls;
};

std::vector<Block> read_blocks(const char* path) {
    std::ifstream file(path);
    std::vector<Block> blocks;
    for (std::string line; std::getline(file, line);) {
        Block block;
        std::istringstream words(line);
        Controls& c = block.controls;
        words >> block.count >> c.amount >> c.low_hz >> c.high_hz >> c.smooth_octaves >> c.mid_side >> c.freeze;
        blocks.push_back(block);
    }
    return blocks;
}

Floats read_input() {
    Floats samples;
    for (float buffer[4096]; const std::size_t count = std::fread(buffer, sizeof(float), 4096, stdin);)
        samples.insert(samples.end(), buffer, buffer + count);
    return samples;
}

// Process one block in place; return its seconds.
double process(Stream& stream, float* samples, std::size_t channels, const Block& block, Floats (&planar)[4]) {
    const float* input[2];
    float *wet[2], *dry[2];
    for (std::size_t c = 0; c < channels; ++c) {
        planar[c].resize(block.count);
        planar[2 + c].resize(block.count);
        input[c] = wet[c] = planar[c].data();
        dry[c] = planar[2 + c].data();
        for (std::size_t i = 0; i < block.count; ++i) planar[c][i] = samples[i * channels + c];
    }
    const auto start = std::chrono::steady_clock::now();
    stream.process(input, wet, dry, block.count, block.controls);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    for (std::size_t c = 0; c < channels; ++c)
        for (std::size_t i = 0; i < block.count; ++i) samples[i * channels + c] = wet[c][i];
    return seconds.count();
}

int run(const char* model_path, unsigned rate, std::size_t channels, const char* blocks_path) {
    const Model model = load_model(model_path);
    if (rate < model.rate || rate > 384'000 || channels < 1 || channels > Stream::most_channels) {
        std::fprintf(stderr, "offline: the rate or the number of channels is out of range\n");
        return 2;
    }
    Stream stream(model, rate, channels);
    Floats samples = read_input(), planar[4];
    const std::size_t total = samples.size() / channels;
    std::vector<Block> blocks = blocks_path ? read_blocks(blocks_path) : std::vector<Block>();
    double seconds = 0, worst = 0;
    for (std::size_t done = 0, number = 0; done < total; ++number) {
        Block block = number < blocks.size() ? blocks[number] : Block{512, {}};
        if (block.count == 0) stream.reset();
        block.count = std::min(block.count, total - done);
        const double used = process(stream, &samples[done * channels], channels, block, planar);
        seconds += used;
        if (block.count > 0) worst = std::max(worst, used * rate / double(block.count));
        done += block.count;
    }
    std::fwrite(samples.data(), sizeof(float), samples.size(), stdout);
    std::fprintf(stderr, "{\"latency\": %zu, \"name\": \"%s\", \"licence\": \"%s\", \"share\": %.6f, \"worst_share\": %.6f}\n",
                 stream.latency(), model.name.c_str(), model.licence.c_str(), seconds * rate / double(total), worst);
    return 0;
}

}  // namespace

int main(int count, char** arguments) {
    if (count < 4) {
        std::fprintf(stderr, "usage: offline MODEL RATE CHANNELS [BLOCKS] < input > output\n");
        return 2;
    }
    try {
        return run(arguments[1], unsigned(std::atoi(arguments[2])), std::size_t(std::atoi(arguments[3])),
                   count > 4 ? arguments[4] : nullptr);
    } catch (const ModelFileError& error) {
        std::fprintf(stderr, "offline: %s\n", error.what());
        return 1;
    }
}
