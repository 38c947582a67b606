#include "fft.hpp"

#include <cmath>
#include <utility>

namespace tonewood {
namespace {

const double pi = std::acos(-1.0);

struct Complex {
    float re, im;
};
Complex operator+(Complex a, Complex b) { return {a.re + b.re, a.im + b.im}; }
Complex operator-(Complex a, Complex b) { return {a.re - b.re, a.im - b.im}; }
Complex operator*(float a, Complex b) { return {a * b.re, a * b.im}; }
Complex operator*(Complex a, Complex b) { return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re}; }
Complex times_minus_i(Complex a) { return {a.im, -a.re}; }

// Transform of `Radix` values in place.
template <std::size_t Radix>
void butterfly(Complex* x) {
    if constexpr (Radix == 2) {
        const Complex difference = x[0] - x[1];
        x[0] = x[0] + x[1];
        x[1] = difference;
    } else if constexpr (Radix == 3) {
        const Complex sum = x[1] + x[2], turned = 0.866025404f * times_minus_i(x[1] - x[2]);
        const Complex middle = x[0] - 0.5f * sum;
        x[0] = x[0] + sum;
        x[1] = middle + turned;
        x[2] = middle - turned;
    } else if constexpr (Radix == 4) {
        const Complex even = x[0] + x[2], odd = x[1] + x[3];
        const Complex even_difference = x[0] - x[2], turned = times_minus_i(x[1] - x[3]);
        x[0] = even + odd;
        x[1] = even_difference + turned;
        x[2] = even - odd;
        x[3] = even_difference - turned;
    } else {
        constexpr float cos1 = 0.309016994f, cos2 = -0.809016994f, sin1 = 0.951056516f, sin2 = 0.587785252f;
        const Complex outer = x[1] + x[4], inner = x[2] + x[3];
        const Complex outer_turned = times_minus_i(x[1] - x[4]), inner_turned = times_minus_i(x[2] - x[3]);
        const Complex a = x[0] + cos1 * outer + cos2 * inner, b = x[0] + cos2 * outer + cos1 * inner;
        const Complex c = sin1 * outer_turned + sin2 * inner_turned, d = sin2 * outer_turned - sin1 * inner_turned;
        x[0] = x[0] + outer + inner;
        x[1] = a + c;
        x[2] = b + d;
        x[3] = b - d;
        x[4] = a - c;
    }
}

// One pass: input [output, group, stride], output [group, output, stride].
template <std::size_t Radix>
void run_stage(std::size_t groups, std::size_t stride, const Complexes& twiddles, const Complexes& input,
               Complexes& output) {
    const float *in_re = input.re.data(), *in_im = input.im.data();
    float* __restrict out_re = output.re.data();
    float* __restrict out_im = output.im.data();
    for (std::size_t group = 0; group < groups; ++group) {
        const float *w_re = &twiddles.re[group * Radix], *w_im = &twiddles.im[group * Radix];
        const std::size_t from = stride * group, to = stride * Radix * group, step = stride * groups;
        for (std::size_t q = 0; q < stride; ++q) {
            Complex x[Radix];
            for (std::size_t j = 0; j < Radix; ++j) x[j] = {in_re[from + j * step + q], in_im[from + j * step + q]};
            butterfly<Radix>(x);
            for (std::size_t j = 0; j < Radix; ++j) {
                const Complex y = Complex{w_re[j], w_im[j]} * x[j];
                out_re[to + j * stride + q] = y.re;
                out_im[to + j * stride + q] = y.im;
            }
        }
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
            Stage stage{radix, groups, stride, Complexes(groups * radix)};
            for (std::size_t k = 0; k < groups * radix; ++k) {
                const double angle = -2 * pi * double((k / radix) * (k % radix)) / double(groups * radix);
                stage.twiddles.re[k] = float(std::cos(angle));
                stage.twiddles.im[k] = float(std::sin(angle));
            }
            stages_.push_back(std::move(stage));
            stride *= radix;
        }
    }
}

void Fft::forward(Complexes& values) {
    for (const Stage& s : stages_) {
        const auto run = s.radix == 2   ? run_stage<2>
                         : s.radix == 3 ? run_stage<3>
                         : s.radix == 4 ? run_stage<4>
                                        : run_stage<5>;
        run(s.groups, s.stride, s.twiddles, values, work_);
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
      fft_(fast_fft_length(samples + bins - 1)),
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
        const Complex product = Complex{values_.re[k], values_.im[k]} * Complex{kernel_.re[k], kernel_.im[k]};
        values_.re[k] = product.re;
        values_.im[k] = product.im;
    }
    fft_.inverse(values_);
    // The outer chirp has magnitude 1, so it doesn't change the power.
    for (std::size_t k = 0; k < bins_; ++k)
        power[k] = values_.re[k] * values_.re[k] + values_.im[k] * values_.im[k];
}

}  // namespace tonewood
