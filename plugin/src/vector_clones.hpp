// Compiles a function twice, for any processor and for those with AVX2 and FMA; the loader picks one.
#pragma once

#include <cstddef>

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define TONEWOOD_VECTOR_CLONES __attribute__((target_clones("arch=haswell", "default"), flatten))
#else
#define TONEWOOD_VECTOR_CLONES
#endif
