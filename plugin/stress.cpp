// Audio thread and host thread at work at once, for sanitizers, and a check that audio never allocates.
//
//   stress MODEL OTHER_MODEL SECONDS_OF_AUDIO
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <new>
#include <random>
#include <thread>

#include "src/processor.hpp"

namespace {

thread_local bool is_audio = false;

[[noreturn]] void fail(const char* message) {
    std::fprintf(stderr, "stress: %s\n", message);
    std::_Exit(1);
}

}  // namespace

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
// Every allocation of the program comes here.
extern "C" {
void* __libc_malloc(std::size_t);
void __libc_free(void*);
void* malloc(std::size_t size) {
    if (is_audio) fail("the audio thread allocated memory");
    return __libc_malloc(size);
}
void free(void* memory) {
    if (is_audio && memory) fail("the audio thread freed memory");
    __libc_free(memory);
}
}
#endif

using namespace tonewood;

namespace {

Parameters random_parameters(std::mt19937& random) {
    const auto uniform = [&](float low, float high) {
        return std::uniform_real_distribution<float>(low, high)(random);
    };
    Parameters p;
    p.amount = uniform(-1, 2);
    p.low_hz = random() % 2 ? uniform(20, 2'000) : 0;
    p.high_hz = random() % 2 ? uniform(2'000, 20'000) : 0;
    p.smooth_octaves = random() % 2 ? uniform(0, 4) : 0;
    p.mid_side = random() % 2;
    p.freeze = random() % 4 == 0;
    p.delta = random() % 4 == 0;
    p.bypass = random() % 4 == 0;
    p.model = unsigned(random() % 3);
    return p;
}

// Music, silence, full scale, denormal numbers and values that are not audio.
void fill(float* samples, std::size_t count, std::mt19937& random) {
    const auto kind = unsigned(random() % 6);
    for (std::size_t i = 0; i < count; ++i)
        samples[i] = kind == 0   ? 0.0f
                     : kind == 1 ? 1.0f
                     : kind == 2 ? 1e-40f
                     : kind == 3 ? (i % 100 ? 0.1f : std::nanf(""))
                                 : 0.2f * std::sin(0.05f * float(i) * float(kind));
}

void play(Processor& processor, std::size_t total, unsigned seed) {
    std::mt19937 random(seed);
    std::vector<float> left(8192), right(8192);
    float* channels[] = {left.data(), right.data()};
    Parameters parameters;
    for (std::size_t done = 0; done < total;) {
        const std::size_t count = random() % 8 ? 1 + random() % 512 : 1 + random() % 8192;
        if (random() % 20 == 0) parameters = random_parameters(random);
        for (float* channel : channels) fill(channel, count, random);
        is_audio = true;
        processor.process(channels, channels, count, parameters);
        is_audio = false;
        for (std::size_t i = 0; i < count; ++i)
            if (!std::isfinite(left[i]) || !std::isfinite(right[i])) fail("the output is not finite");
        done += count;
    }
}

void load_while_playing(Processor& processor, const char* paths[2], std::thread& audio, std::atomic<bool>& ended) {
    float sum = 0;
    for (unsigned i = 0; !ended; ++i) {
        try {
            processor.load(i % 3 == 2 ? "/dev/null" : paths[i % 3]);
        } catch (const ModelFileError&) {
        }
        for (std::size_t row = 0; row < processor.display().rows; ++row) sum += processor.display().levels_db[row];
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    audio.join();
    if (!std::isfinite(sum)) fail("a displayed level is not finite");
}

}  // namespace

int main(int count, char** arguments) {
    if (count != 4) fail("usage: stress MODEL OTHER_MODEL SECONDS_OF_AUDIO");
    const char* paths[] = {arguments[1], arguments[2]};
    Processor processor({load_model(paths[0]), load_model(paths[1])}, 2);
    for (unsigned rate : {48'000u, 22'050u, 96'000u}) {  // the rate changes between two activations
        processor.prepare(rate);
        processor.reset();
        std::atomic<bool> ended{false};
        std::thread audio([&] {
            play(processor, std::size_t(rate * std::atof(arguments[3])), rate);
            ended = true;
        });
        load_while_playing(processor, paths, audio, ended);
    }
    std::puts("no fault");
}
