// Treats denormal numbers, with which processors are slow, as 0 within a scope.
#pragma once

#if defined(__SSE2__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace tonewood {

class FlushDenormals {
public:
    FlushDenormals() : saved_(read()) { write(saved_ | flush_bits); }
    ~FlushDenormals() { write(saved_); }
    FlushDenormals(const FlushDenormals&) = delete;
    FlushDenormals& operator=(const FlushDenormals&) = delete;

private:
#if defined(__SSE2__) || defined(_M_X64)
    using Register = unsigned;
    static constexpr Register flush_bits = 0x8040;  // flush results, and read denormals as 0
    static Register read() { return _mm_getcsr(); }
    static void write(Register value) { _mm_setcsr(value); }
#elif defined(__aarch64__)
    using Register = unsigned long;
    static constexpr Register flush_bits = 1ul << 24;
    static Register read() {
        Register value;
        asm volatile("mrs %0, fpcr" : "=r"(value));
        return value;
    }
    static void write(Register value) { asm volatile("msr fpcr, %0" : : "r"(value)); }
#else
    using Register = unsigned;
    static constexpr Register flush_bits = 0;
    static Register read() { return 0; }
    static void write(Register) {}
#endif
    Register saved_;
};

}  // namespace tonewood
