/* The inner loops of jpeg.c: samples from coefficients, pixels from samples, and crops from pixels.

   jpeg_variant.h has them; it is compiled twice on x86-64, and the processor that runs it decides. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { BEYOND = 64 }; /* bytes that a loop may read or write behind a buffer of rows */

typedef struct {
    uint8_t *samples;
    size_t stride;
    int left;          /* which sample of a row of the component is the first one here */
    int mask;          /* row y of the component is row y & mask here: only two rows of MCUs are kept */
    int width, height; /* of the component; what lies beyond is no picture */
} Plane;

typedef struct {
    Plane y, cb, cr;
    bool grey;
    int h, v; /* how many samples of luma there are for one of chroma */
} Source;

/* Room for a row of upsampled chroma, width + BEYOND bytes each, and for what comes between. */
typedef struct {
    uint16_t *sums; /* width / 2 + BEYOND */
    uint8_t *cb, *cr;
} Chroma;

/* One direction of a resize: output i is the sum of weight[i * taps + t] * input[first[i] + t]. */
typedef struct {
    int size, taps, bits; /* taps: a multiple of 4, the superfluous ones 0; weights are in units of 2^-bits */
    int32_t *first;
    int16_t *weight;
} Filter;

typedef struct {
    /* A row of n blocks, n even, to 8 rows of samples. ``last``: zigzag positions. False: some number is too large. */
    bool (*inverse_dct)(const int16_t *blocks, const uint8_t *last, int n, const int16_t *quant, uint8_t *to,
                        size_t stride);
    /* The RGB pixels from ``left`` to ``right`` of row y; BEYOND bytes behind them may be touched. */
    void (*pixels)(const Source *source, int y, int left, int right, Chroma *scratch, uint8_t *to);
    /* Two rows of RGB at once to two rows of filter->size RGB pixels. Behind the rows 3 * taps + BEYOND bytes may be
       read, behind the results BEYOND bytes written. */
    void (*across)(const Filter *filter, const uint8_t *a, const uint8_t *b, uint8_t *to_a, uint8_t *to_b);
    /* Row i of the result, n bytes and BEYOND more, from the rows of which ``rows`` is number first[i]. */
    void (*down)(const Filter *filter, int i, const uint8_t *rows, size_t stride, size_t n, uint8_t *to);
} Kernels;

#define TARGET
#define NAMED(name) name##_plain
#define AVX2        0
#include "jpeg_variant.h"
#undef TARGET
#undef NAMED
#undef AVX2

#if defined(__x86_64__) && !defined(SOFTEDGE_PLAIN)
#define HAS_AVX2 1
#include <immintrin.h>
#define TARGET      __attribute__((target("avx2")))
#define NAMED(name) name##_avx2
#define AVX2        1
#include "jpeg_variant.h"
#endif

static const Kernels *choose_kernels(int plain) {
#ifdef HAS_AVX2
    if (!plain && __builtin_cpu_supports("avx2")) return &kernels_avx2;
#else
    (void)plain;
#endif
    return &kernels_plain;
}
