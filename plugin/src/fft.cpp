#include "fft.hpp"

#include <cmath>
#include <cstring>
#include <utility>

#include "units.hpp"
#include "vector_clones.hpp"

namespace tonewood {
namespace {

// Four numbers at once; GCC and Clang compile the operators to vector instructions.
using Vector = float __attribute__((vector_size(16)));
constexpr std::size_t lanes = 4;

// Of one number, or of a vector of them.
template <typename Value>
struct Complex {
    Value re, im;
};
template <typename V>
Complex<V> operator+(Complex<V> a, Complex<V> b) { return {a.re + b.re, a.im + b.im}; }
template <typename V>
Complex<V> operator-(Complex<V> a, Complex<V> b) { return {a.re - b.re, a.im - b.im}; }
template <typename V>
Complex<V> operator*(float a, Complex<V> b) { return {a * b.re, a * b.im}; }
template <typename V, typename W>
Complex<V> product(Complex<W> a, Complex<V> b) { return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re}; }
template <typename V>
Complex<V> times_minus_i(Complex<V> a) { return {a.im, -a.re}; }

template <typename V>
Complex<V> load(const Complexes& values, std::size_t place) {
    Complex<V> result;
    std::memcpy(&result.re, &values.re[place], sizeof(V));
    std::memcpy(&result.im, &values.im[place], sizeof(V));
    return result;
}

template <typename V>
void store(Complex<V> value, Complexes& values, std::size_t place) {
    std::memcpy(&values.re[place], &value.re, sizeof(V));
    std::memcpy(&values.im[place], &value.im, sizeof(V));
}

// Transform of `Radix` values in place.
template <std::size_t Radix, typename V>
void butterfly(Complex<V>* x) {
    if constexpr (Radix == 2) {
        const auto difference = x[0] - x[1];
        x[0] = x[0] + x[1];
        x[1] = difference;
    } else if constexpr (Radix == 3) {
        const auto sum = x[1] + x[2], turned = 0.866025404f * times_minus_i(x[1] - x[2]);
        const auto middle = x[0] - 0.5f * sum;
        x[0] = x[0] + sum;
        x[1] = middle + turned;
        x[2] = middle - turned;
    } else if constexpr (Radix == 4) {
        const auto even = x[0] + x[2], odd = x[1] + x[3];
        const auto even_difference = x[0] - x[2], turned = times_minus_i(x[1] - x[3]);
        x[0] = even + odd;
        x[1] = even_difference + turned;
        x[2] = even - odd;
        x[3] = even_difference - turned;
    } else {
        constexpr float cos1 = 0.309016994f, cos2 = -0.809016994f, sin1 = 0.951056516f, sin2 = 0.587785252f;
        const auto outer = x[1] + x[4], inner = x[2] + x[3];
        const auto outer_turned = times_minus_i(x[1] - x[4]), inner_turned = times_minus_i(x[2] - x[3]);
        const auto a = x[0] + cos1 * outer + cos2 * inner, b = x[0] + cos2 * outer + cos1 * inner;
        const auto c = sin1 * outer_turned + sin2 * inner_turned, d = sin2 * outer_turned - sin1 * inner_turned;
        x[0] = x[0] + outer + inner;
        x[1] = a + c;
        x[2] = b + d;
        x[3] = b - d;
        x[4] = a - c;
    }
}

// The transforms of a group from place q on, as many as V has numbers.
template <std::size_t Radix, typename V>
void transform(const Fft::Stage& s, std::size_t group, std::size_t q, const Complexes& input, Complexes& output) {
    Complex<V> x[Radix];
    for (std::size_t j = 0; j < Radix; ++j) x[j] = load<V>(input, s.stride * (group + j * s.groups) + q);
    butterfly<Radix>(x);
    store(x[0], output, s.stride * Radix * group + q);
    for (std::size_t j = 1; j < Radix; ++j) {
        const auto twiddle = load<float>(s.twiddles, (j - 1) * s.groups + group);
        store(product(twiddle, x[j]), output, s.stride * (Radix * group + j) + q);
    }
}

// The transforms of `lanes` groups in the first stage, where the stride is 1.
template <std::size_t Radix>
void transform_groups(const Fft::Stage& s, std::size_t group, const Complexes& input, Complexes& output) {
    Complex<Vector> x[Radix];
    for (std::size_t j = 0; j < Radix; ++j) x[j] = load<Vector>(input, group + j * s.groups);
    butterfly<Radix>(x);
    for (std::size_t j = 1; j < Radix; ++j)
        x[j] = product(load<Vector>(s.twiddles, (j - 1) * s.groups + group), x[j]);
    for (std::size_t lane = 0; lane < lanes; ++lane)
        for (std::size_t j = 0; j < Radix; ++j) {
            output.re[Radix * (group + lane) + j] = x[j].re[lane];
            output.im[Radix * (group + lane) + j] = x[j].im[lane];
        }
}

// One pass: input [output, group, stride], output [group, output, stride].
template <std::size_t Radix>
void run_stage(const Fft::Stage& s, const Complexes& input, Complexes& output) {
    std::size_t group = 0;
    if (s.stride == 1)
        for (; group + lanes <= s.groups; group += lanes) transform_groups<Radix>(s, group, input, output);
    for (; group < s.groups; ++group) {
        std::size_t q = 0;
        for (; q + lanes <= s.stride; q += lanes) transform<Radix, Vector>(s, group, q, input, output);
        for (; q < s.stride; ++q) transform<Radix, float>(s, group, q, input, output);
    }
}

}  // namespace

std::size_t fast_fft_length(std::size_t least) {
    for (std::size_t length = least;; ++length) {
        std::size_t rest = length;
        for (std::size_t factor : {2, 3, 5})
            while (rest % factor == 0) rest /= factor;
        if (rest == 1) return length;
    }
}

Fft::Fft(std::size_t length) : work_(length) {
    std::size_t stride = 1;
    for (std::size_t radix : {4, 5, 3, 2}) {
        while (length / stride % radix == 0) {
            const std::size_t groups = length / stride / radix;
            Stage stage{radix, groups, stride, Complexes(groups * (radix - 1))};
            for (std::size_t k = 0; k < stage.twiddles.size(); ++k) {
                const double angle = -2 * pi * double((k / groups + 1) * (k % groups)) / double(groups * radix);
                stage.twiddles.re[k] = float(std::cos(angle));
                stage.twiddles.im[k] = float(std::sin(angle));
            }
            stages_.push_back(std::move(stage));
            stride *= radix;
        }
    }
}

TONEWOOD_VECTOR_CLONES void Fft::forward(Complexes& values) {
    for (const Stage& s : stages_) {
        switch (s.radix) {
            case 2: run_stage<2>(s, values, work_); break;
            case 3: run_stage<3>(s, values, work_); break;
            case 4: run_stage<4>(s, values, work_); break;
            default: run_stage<5>(s, values, work_);
        }
        std::swap(values, work_);
    }
}

void Fft::inverse(Complexes& values) {
    std::swap(values.re, values.im);  // conjugation times i, undone below
    forward(values);
    std::swap(values.re, values.im);
}

RealBins::RealBins(std::size_t samples, std::size_t length, std::size_t bins)
    : samples_(samples),
      bins_(bins),
      fft_(4 * fast_fft_length((samples + bins + 2) / 4)),  // whole vectors
      chirp_(samples > bins ? samples : bins),
      kernel_(fft_.length()),
      values_(fft_.length()) {
    for (std::size_t n = 0; n < chirp_.size(); ++n) {
        const double angle = pi * double(n * n % (2 * length)) / double(length);  // of exp(-i angle)
        chirp_.re[n] = float(std::cos(angle));
        chirp_.im[n] = float(-std::sin(angle));
    }
    // The conjugate chirp at k - n, from 1 - samples to bins - 1; negative places wrap around.
    const float scale = 1.0f / float(fft_.length());
    for (std::size_t n = 0; n < samples; ++n) {
        const std::size_t place = n == 0 ? 0 : fft_.length() - n;
        kernel_.re[place] = scale * chirp_.re[n];
        kernel_.im[place] = -scale * chirp_.im[n];
    }
    for (std::size_t k = 1; k < bins; ++k) {
        kernel_.re[k] = scale * chirp_.re[k];
        kernel_.im[k] = -scale * chirp_.im[k];
    }
    fft_.forward(kernel_);
}

void RealBins::power(const float* samples, float* power) {
    for (std::size_t n = 0; n < samples_; ++n) {
        values_.re[n] = samples[n] * chirp_.re[n];
        values_.im[n] = samples[n] * chirp_.im[n];
    }
    for (std::size_t n = samples_; n < values_.size(); ++n) values_.re[n] = values_.im[n] = 0;
    fft_.forward(values_);
    for (std::size_t k = 0; k < values_.size(); ++k) {
        const float re = values_.re[k], im = values_.im[k];
        values_.re[k] = re * kernel_.re[k] - im * kernel_.im[k];
        values_.im[k] = re * kernel_.im[k] + im * kernel_.re[k];
    }
    fft_.inverse(values_);
    // The outer chirp has magnitude 1, so it doesn't change the power.
    for (std::size_t k = 0; k < bins_; ++k)
        power[k] = values_.re[k] * values_.re[k] + values_.im[k] * values_.im[k];
}

}  // namespace tonewood
