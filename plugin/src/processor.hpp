// The plug-in without its wrapper: one stream for each model, changes between them, delta and bypass.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "stream.hpp"

namespace tonewood {

struct Parameters : Controls {
    bool delta = false;   // put out only what the mask adds and takes away
    bool bypass = false;  // put out the input, with the same delay
    unsigned model = 0;   // one of the bundled models, or their number for the loaded file
};

// What a user interface shows, written by the audio thread and read by any.
struct Display {
    static constexpr std::size_t most_rows = 512;
    std::atomic<std::size_t> rows{0};
    std::array<std::atomic<float>, most_rows> hz{}, levels_db{}, gains_db{};
};

class Processor {
public:
    Processor(std::vector<Model> bundled, std::size_t channels);
    ~Processor();
    Processor(const Processor&) = delete;
    Processor& operator=(const Processor&) = delete;

    // --- Not while audio is processed.
    void prepare(double rate);
    void reset();

    // --- From a thread that may wait, also while audio is processed.
    // Load a model file for the last choice of `Parameters::model`; ModelFileError leaves the one before.
    void load(const std::string& path);

    // --- From the audio thread: no allocation, lock or exception.
    void process(const float* const* input, float* const* output, std::size_t count, const Parameters& parameters);

    // --- From any thread.
    std::size_t latency() const { return latency_.load(std::memory_order_relaxed); }
    const Display& display() const { return display_; }

private:
    // A model and its stream at the rate of the host.
    struct Voice {
        Voice(const Model& source, unsigned rate, std::size_t channels)
            : model(source), stream(model, rate, channels) {}
        const Model model;
        Stream stream;
    };

    static constexpr std::size_t part_size = 256;  // samples that are processed at once
    struct Part {
        float wet[Stream::most_channels][part_size], dry[Stream::most_channels][part_size];
    };

    void accept_file();
    Voice* chosen(unsigned model) const;
    void begin_change(Voice* voice);
    void process_part(const float* const* input, float* const* output, std::size_t count,
                      const Parameters& parameters);
    void run_voice(Voice& voice, const float* const* input, std::size_t count, const Controls& controls, Part& part);
    void mix_change(std::size_t count);
    void finish_change();
    void update_display();

    const std::vector<Model> bundled_;
    const std::size_t channels_;
    std::vector<std::unique_ptr<Voice>> voices_;  // of the bundled models
    // The file's voice belongs to the audio thread. Another one comes and goes through the two pointers.
    std::unique_ptr<Voice> file_voice_, replaced_;
    std::atomic<Voice*> incoming_{nullptr}, outgoing_{nullptr};
    std::unique_ptr<Model> file_model_;  // for other rates; belongs to the thread that loads
    std::atomic<unsigned> rate_{0};

    Voice *current_ = nullptr, *next_ = nullptr;  // next: while the model changes
    std::size_t warm_up_ = 0;                     // samples until the next voice can be heard
    float fade_ = 0, fade_step_ = 0;              // share of the next voice
    float wet_share_ = 1, dry_share_ = 0;
    Part part_, next_part_;
    std::atomic<std::size_t> latency_{0};
    Display display_;
};

}  // namespace tonewood
