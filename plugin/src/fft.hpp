// Discrete Fourier transforms of fixed length; nothing is allocated after construction.
#pragma once

#include <cstddef>
#include <vector>

namespace tonewood {

// Complex values in two arrays, so that loops over them vectorise.
struct Complexes {
    explicit Complexes(std::size_t size = 0) : re(size), im(size) {}
    std::size_t size() const { return re.size(); }
    std::vector<float> re, im;
};

// Smallest length, at least this, whose prime factors are 2, 3 and 5.
std::size_t fast_fft_length(std::size_t least);

// Complex transform, unscaled in both directions, by the Stockham algorithm (Cochran et al. 1967).
class Fft {
public:
    explicit Fft(std::size_t length);  // with prime factors 2, 3 and 5
    void forward(Complexes& values);
    // The inverse, times the length.
    void inverse(Complexes& values);
    std::size_t length() const { return work_.size(); }

    struct Stage {
        std::size_t radix, groups, stride;
        Complexes twiddles;  // [output - 1, group]; those of output 0 are 1
    };

private:
    std::vector<Stage> stages_;
    Complexes work_;
};

// First bins of the transform of real samples, for any transform length, by the chirp transform
// (Bluestein 1970): kn = (k² + n² - (k - n)²) / 2 turns the sum into a convolution.
class RealBins {
public:
    RealBins(std::size_t samples, std::size_t length, std::size_t bins);
    // power[k] = |sum over n of samples[n] exp(-2πi kn / length)|²
    void power(const float* samples, float* power);

private:
    std::size_t samples_, bins_;
    Fft fft_;
    Complexes chirp_, kernel_, values_;
};

}  // namespace tonewood
