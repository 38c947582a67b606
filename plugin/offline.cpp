// Processes raw audio with the plug-in's engine, block by block, for tests and measurements.
//
//   offline RATE CHANNELS BLOCKS MODEL... < input > output
//
// Input and output are float32, channels interleaved. Each line of the file BLOCKS says how to process the
// next samples: count, amount, low_hz, high_hz, smooth_octaves, mid_side, freeze, delta, bypass, model.
// A count of 0 resets the processor. After the last line, blocks of 512 samples have its parameters.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <time.h>

#include "src/processor.hpp"

using namespace tonewood;

namespace {

struct Block {
    std::size_t count = 512;
    Parameters parameters;
};

std::vector<Block> read_blocks(const char* path) {
    std::ifstream file(path);
    std::vector<Block> blocks;
    for (std::string line; std::getline(file, line);) {
        Block block;
        Parameters& p = block.parameters;
        std::istringstream(line) >> block.count >> p.amount >> p.low_hz >> p.high_hz >> p.smooth_octaves >>
            p.mid_side >> p.freeze >> p.delta >> p.bypass >> p.model;
        blocks.push_back(block);
    }
    return blocks;
}

Floats read_input() {
    Floats samples;
    float buffer[4096];
    while (const std::size_t count = std::fread(buffer, sizeof(float), 4096, stdin))
        samples.insert(samples.end(), buffer, buffer + count);
    return samples;
}

// Processor time of this thread, which other processes of the machine don't change.
double thread_seconds() {
    timespec time{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return double(time.tv_sec) + 1e-9 * double(time.tv_nsec);
}

// Process interleaved samples in place; return the seconds that it took.
double process(Processor& processor, float* samples, std::size_t channels, const Block& block) {
    std::vector<Floats> planar(channels, Floats(block.count));
    float* pointers[Stream::most_channels];
    for (std::size_t c = 0; c < channels; ++c) {
        pointers[c] = planar[c].data();
        for (std::size_t i = 0; i < block.count; ++i) planar[c][i] = samples[i * channels + c];
    }
    const double start = thread_seconds();
    processor.process(pointers, pointers, block.count, block.parameters);
    const double seconds = thread_seconds() - start;
    for (std::size_t c = 0; c < channels; ++c)
        for (std::size_t i = 0; i < block.count; ++i) samples[i * channels + c] = planar[c][i];
    return seconds;
}

int run(unsigned rate, std::size_t channels, const char* blocks_path, std::vector<Model> models) {
    if (rate < 8'000 || rate > 384'000 || channels < 1 || channels > Stream::most_channels) {
        std::fprintf(stderr, "offline: the rate or the number of channels is out of range\n");
        return 2;
    }
    Processor processor(std::move(models), channels);
    processor.prepare(rate);
    Floats samples = read_input();
    const std::vector<Block> blocks = read_blocks(blocks_path);
    const std::size_t total = samples.size() / channels;
    double seconds = 0, worst = 0;
    Block block;
    for (std::size_t done = 0, number = 0; done < total; ++number) {
        if (number < blocks.size()) block = blocks[number];
        else block.count = 512;
        if (block.count == 0) processor.reset();
        Block part = block;
        part.count = std::min(block.count, total - done);
        const double used = process(processor, &samples[done * channels], channels, part);
        seconds += used;
        if (part.count >= 512) worst = std::max(worst, used * rate / double(part.count));
        done += part.count;
    }
    std::fwrite(samples.data(), sizeof(float), samples.size(), stdout);
    std::fprintf(stderr, "{\"latency\": %zu, \"share\": %.6f, \"worst_share\": %.6f}\n", processor.latency(),
                 total ? seconds * rate / double(total) : 0.0, worst);
    return 0;
}

}  // namespace

int main(int count, char** arguments) {
    if (count < 5) {
        std::fprintf(stderr, "usage: offline RATE CHANNELS BLOCKS MODEL... < input > output\n");
        return 2;
    }
    try {
        std::vector<Model> models;
        for (int i = 4; i < count; ++i) models.push_back(load_model(arguments[i]));
        return run(unsigned(std::atoi(arguments[1])), std::size_t(std::atoi(arguments[2])), arguments[3],
                   std::move(models));
    } catch (const ModelFileError& error) {
        std::fprintf(stderr, "offline: %s\n", error.what());
        return 1;
    }
}
