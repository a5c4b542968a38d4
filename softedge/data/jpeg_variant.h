/* See jpeg_kernels.h. No guard: compiled once for each set of instructions. Both give the same bits. */

/* ---- the inverse DCT --------------------------------------------------------------------------------------------- */

/* Loeffler, Ligtenberg and Moschytz 1989, with 13-bit constants and 2 more bits between the passes: the rounding of
   libjpeg's "islow". Its vector versions keep 16 bits between the passes and while two inputs are added. That is the
   same as long as these numbers stay below 2^14, which no sane picture leaves; beyond it the block is not mine. */
#ifndef F_0_298
#define F_0_298 2446
#define F_0_390 3196
#define F_0_541 4433
#define F_0_765 6270
#define F_0_899 7373
#define F_1_175 9633
#define F_1_501 12299
#define F_1_847 15137
#define F_1_961 16069
#define F_2_053 16819
#define F_2_562 20995
#define F_3_072 25172
#define BETWEEN 16384
#endif

#if AVX2

/* The sums of two products, of the lower and the upper four words in each half. */
typedef struct {
    __m256i low, high;
} NAMED(Wide);
#define Wide NAMED(Wide)

static TARGET inline Wide NAMED(madd)(__m256i a, __m256i b, int first, int second) {
    const __m256i by = _mm256_set1_epi32((int)((uint32_t)second << 16 | (uint16_t)first));
    return (Wide){_mm256_madd_epi16(_mm256_unpacklo_epi16(a, b), by),
                  _mm256_madd_epi16(_mm256_unpackhi_epi16(a, b), by)};
}

static TARGET inline Wide NAMED(add)(Wide a, Wide b) {
    return (Wide){_mm256_add_epi32(a.low, b.low), _mm256_add_epi32(a.high, b.high)};
}

static TARGET inline Wide NAMED(sub)(Wide a, Wide b) {
    return (Wide){_mm256_sub_epi32(a.low, b.low), _mm256_sub_epi32(a.high, b.high)};
}

static TARGET inline __m256i NAMED(narrow)(Wide a, int shift) {
    return _mm256_packs_epi32(_mm256_srai_epi32(a.low, shift), _mm256_srai_epi32(a.high, shift));
}

/* One dimension over x[0..7], in 16 columns at once; ``half``: x[4..7] are known to be 0. */
static TARGET inline __attribute__((always_inline)) void NAMED(one_dct)(__m256i x[8], int shift, bool half) {
    const __m256i zero = _mm256_setzero_si256();
    const Wide rounding = {_mm256_set1_epi32(1 << (shift - 1)), _mm256_set1_epi32(1 << (shift - 1))};
    __m256i x4 = half ? zero : x[4], x5 = half ? zero : x[5], x6 = half ? zero : x[6], x7 = half ? zero : x[7];
    /* x << 13, as x in the upper word and then 3 back */
    __m256i sum = half ? x[0] : _mm256_add_epi16(x[0], x4), difference = half ? x[0] : _mm256_sub_epi16(x[0], x4);
    Wide e0 = {_mm256_srai_epi32(_mm256_unpacklo_epi16(zero, sum), 3),
               _mm256_srai_epi32(_mm256_unpackhi_epi16(zero, sum), 3)};
    Wide e1 = {_mm256_srai_epi32(_mm256_unpacklo_epi16(zero, difference), 3),
               _mm256_srai_epi32(_mm256_unpackhi_epi16(zero, difference), 3)};
    e0 = NAMED(add)(e0, rounding), e1 = NAMED(add)(e1, rounding);
    Wide e3 = NAMED(madd)(x[2], x6, F_0_541 + F_0_765, F_0_541);
    Wide e2 = NAMED(madd)(x[2], x6, F_0_541, F_0_541 - F_1_847);
    __m256i z3 = half ? x[3] : _mm256_add_epi16(x7, x[3]), z4 = half ? x[1] : _mm256_add_epi16(x5, x[1]);
    Wide w3 = NAMED(madd)(z3, z4, F_1_175 - F_1_961, F_1_175);
    Wide w4 = NAMED(madd)(z3, z4, F_1_175, F_1_175 - F_0_390);
    Wide o0 = NAMED(add)(w3, NAMED(madd)(x7, x[1], F_0_298 - F_0_899, -F_0_899));
    Wide o3 = NAMED(add)(w4, NAMED(madd)(x7, x[1], -F_0_899, F_1_501 - F_0_899));
    Wide o1 = NAMED(add)(w4, NAMED(madd)(x5, x[3], F_2_053 - F_2_562, -F_2_562));
    Wide o2 = NAMED(add)(w3, NAMED(madd)(x5, x[3], -F_2_562, F_3_072 - F_2_562));
    Wide t0 = NAMED(add)(e0, e3), t3 = NAMED(sub)(e0, e3), t1 = NAMED(add)(e1, e2), t2 = NAMED(sub)(e1, e2);
    x[0] = NAMED(narrow)(NAMED(add)(t0, o3), shift), x[7] = NAMED(narrow)(NAMED(sub)(t0, o3), shift);
    x[1] = NAMED(narrow)(NAMED(add)(t1, o2), shift), x[6] = NAMED(narrow)(NAMED(sub)(t1, o2), shift);
    x[2] = NAMED(narrow)(NAMED(add)(t2, o1), shift), x[5] = NAMED(narrow)(NAMED(sub)(t2, o1), shift);
    x[3] = NAMED(narrow)(NAMED(add)(t3, o0), shift), x[4] = NAMED(narrow)(NAMED(sub)(t3, o0), shift);
}

static TARGET inline void NAMED(transpose)(__m256i x[8]) {
    __m256i a[8], b[8];
    for (int i = 0; i < 4; i++)
        a[2 * i] = _mm256_unpacklo_epi16(x[i], x[i + 4]), a[2 * i + 1] = _mm256_unpackhi_epi16(x[i], x[i + 4]);
    for (int i = 0; i < 4; i++)
        b[2 * i] = _mm256_unpacklo_epi16(a[i], a[i + 4]), b[2 * i + 1] = _mm256_unpackhi_epi16(a[i], a[i + 4]);
    for (int i = 0; i < 4; i++)
        x[2 * i] = _mm256_unpacklo_epi16(b[i], b[i + 4]), x[2 * i + 1] = _mm256_unpackhi_epi16(b[i], b[i + 4]);
}

/* Two blocks, one in each half of the registers. ``half``: only their upper left quarters are not 0. */
static TARGET inline __attribute__((always_inline)) void
NAMED(two_blocks)(const int16_t *blocks, const int16_t *quant, uint8_t *to, size_t stride, bool half, __m256i *high) {
    __m256i x[8];
    for (int i = 0; i < (half ? 4 : 8); i++) {
        __m256i pair =
            _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(blocks + 8 * i))),
                                    _mm_loadu_si128((const __m128i *)(blocks + 64 + 8 * i)), 1);
        x[i] = _mm256_mullo_epi16(pair, _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(quant + 8 * i))));
    }
    NAMED(one_dct)(x, 11, half);
    for (int i = 0; i < 8; i++) *high = _mm256_or_si256(*high, _mm256_add_epi16(x[i], _mm256_set1_epi16(BETWEEN)));
    NAMED(transpose)(x);
    NAMED(one_dct)(x, 18, half);
    /* x[i] is column i: to bytes, then transposed */
    __m256i p[4], q[4];
    for (int i = 0; i < 4; i++)
        p[i] = _mm256_xor_si256(_mm256_packs_epi16(x[2 * i], x[2 * i + 1]), _mm256_set1_epi8((char)0x80));
    q[0] = _mm256_unpacklo_epi8(p[0], p[2]), q[1] = _mm256_unpackhi_epi8(p[0], p[2]);
    q[2] = _mm256_unpacklo_epi8(p[1], p[3]), q[3] = _mm256_unpackhi_epi8(p[1], p[3]);
    p[0] = _mm256_unpacklo_epi8(q[0], q[2]), p[1] = _mm256_unpackhi_epi8(q[0], q[2]);
    p[2] = _mm256_unpacklo_epi8(q[1], q[3]), p[3] = _mm256_unpackhi_epi8(q[1], q[3]);
    q[0] = _mm256_unpacklo_epi8(p[0], p[2]), q[1] = _mm256_unpackhi_epi8(p[0], p[2]);
    q[2] = _mm256_unpacklo_epi8(p[1], p[3]), q[3] = _mm256_unpackhi_epi8(p[1], p[3]);
    for (int i = 0; i < 4; i++) { /* rows 2i and 2i + 1 of the left block, then of the right one */
        __m256i rows = _mm256_permute4x64_epi64(q[i], 0xD8);
        _mm_storeu_si128((__m128i *)(to + (size_t)(2 * i) * stride), _mm256_castsi256_si128(rows));
        _mm_storeu_si128((__m128i *)(to + (size_t)(2 * i + 1) * stride), _mm256_extracti128_si256(rows, 1));
    }
}

static TARGET bool NAMED(inverse_dct)(const int16_t *blocks, const uint8_t *last, int n, const int16_t *quant,
                                      uint8_t *to, size_t stride) {
    __m256i high = _mm256_setzero_si256();
    for (int i = 0; i < n; i += 2, blocks += 128, to += 16) {
        if ((last[i] | last[i + 1]) == 0) {
            int a = (blocks[0] * quant[0] * 4 + 16) >> 5, b = (blocks[64] * quant[0] * 4 + 16) >> 5;
            __m128i level = _mm_packs_epi16(_mm_set1_epi16((short)a), _mm_set1_epi16((short)b));
            level = _mm_xor_si128(level, _mm_set1_epi8((char)0x80));
            for (int row = 0; row < 8; row++) _mm_storeu_si128((__m128i *)(to + (size_t)row * stride), level);
        } else if (last[i] < 10 && last[i + 1] < 10) {
            NAMED(two_blocks)(blocks, quant, to, stride, true, &high);
        } else {
            NAMED(two_blocks)(blocks, quant, to, stride, false, &high);
        }
    }
    return _mm256_testz_si256(high, _mm256_set1_epi16((short)0x8000));
}

#undef Wide

#else

/* One dimension over x[0], x[step], ...; unsigned, so that what is too large wraps. Results are shifted by the caller.
 */
static inline void NAMED(one_dct)(const uint32_t x[8], uint32_t out[8]) {
    uint32_t e0 = (x[0] + x[4]) << 13, e1 = (x[0] - x[4]) << 13, z1 = (x[2] + x[6]) * F_0_541;
    uint32_t e2 = z1 - x[6] * F_1_847, e3 = z1 + x[2] * F_0_765;
    uint32_t z2 = (x[5] + x[3]) * F_2_562, z3 = x[7] + x[3], z4 = x[5] + x[1], z5 = (z3 + z4) * F_1_175;
    z1 = (x[7] + x[1]) * F_0_899, z3 = z5 - z3 * F_1_961, z4 = z5 - z4 * F_0_390;
    uint32_t o0 = x[7] * F_0_298 - z1 + z3, o1 = x[5] * F_2_053 - z2 + z4;
    uint32_t o2 = x[3] * F_3_072 - z2 + z3, o3 = x[1] * F_1_501 - z1 + z4;
    uint32_t t0 = e0 + e3, t1 = e1 + e2, t2 = e1 - e2, t3 = e0 - e3;
    out[0] = t0 + o3, out[1] = t1 + o2, out[2] = t2 + o1, out[3] = t3 + o0;
    out[4] = t3 - o0, out[5] = t2 - o1, out[6] = t1 - o2, out[7] = t0 - o3;
}

static bool NAMED(inverse_dct)(const int16_t *blocks, const uint8_t *last, int n, const int16_t *quant, uint8_t *to,
                               size_t stride) {
    uint32_t high = 0;
    for (int i = 0; i < n; i++, blocks += 64, to += 8) {
        if (last[i] == 0) {
            int level = ((blocks[0] * quant[0] * 4 + 16) >> 5) + 128;
            level = level < 0 ? 0 : level > 255 ? 255 : level;
            for (int row = 0; row < 8; row++) memset(to + (size_t)row * stride, level, 8);
            continue;
        }
        uint32_t between[8][8], x[8], out[8];
        for (int column = 0; column < 8; column++) {
            for (int row = 0; row < 8; row++) x[row] = (uint32_t)(blocks[8 * row + column] * quant[8 * row + column]);
            NAMED(one_dct)(x, out);
            for (int row = 0; row < 8; row++) {
                between[row][column] = (uint32_t)((int32_t)(out[row] + (1 << 10)) >> 11);
                high |= between[row][column] + BETWEEN;
            }
        }
        for (int row = 0; row < 8; row++) {
            NAMED(one_dct)(between[row], out);
            for (int column = 0; column < 8; column++) {
                int level = ((int32_t)(out[column] + (1 << 17)) >> 18) + 128;
                to[(size_t)row * stride + (size_t)column] = (uint8_t)(level < 0 ? 0 : level > 255 ? 255 : level);
            }
        }
    }
    return high < 2 * BETWEEN;
}

#endif

/* ---- upsampling and colour --------------------------------------------------------------------------------------- */

static TARGET inline const uint8_t *NAMED(row)(const Plane *plane, int y) {
    return plane->samples + (size_t)(y & plane->mask) * plane->stride;
}

/* libjpeg's triangle filter: 3/4 of the nearer sample and 1/4 of the further one, in each direction that is halved. At
   the border of the picture the nearest sample stands for the one beyond. Returns where pixel ``left`` is. */
static TARGET const uint8_t *NAMED(upsample)(const Plane *plane, int v, int y, int left, int right, Chroma *scratch,
                                             uint8_t *to) {
    int first = left / 2, n = (right - 1) / 2 - first + 1, nearer = y / v, further = nearer;
    if (v == 2) further = y % 2 ? nearer + 1 : nearer - 1;
    further = further < 0 ? 0 : further >= plane->height ? plane->height - 1 : further;
    const uint8_t *a = NAMED(row)(plane, nearer) + (first - plane->left);
    const uint8_t *b = NAMED(row)(plane, further) + (first - plane->left);
    uint16_t *sums = scratch->sums + 1;
    int from = first > 0 ? -1 : 0, stop = first + n < plane->width ? n + 1 : n;
    if (v == 2)
        for (int i = from; i < stop; i++) sums[i] = (uint16_t)(3 * a[i] + b[i]);
    else
        for (int i = from; i < stop; i++) sums[i] = a[i];
    if (from == 0) sums[-1] = sums[0];
    if (stop == n) sums[n] = sums[n - 1];
    if (v == 2)
        for (int i = 0; i < n; i++) {
            to[2 * i] = (uint8_t)((uint16_t)(3 * sums[i] + sums[i - 1] + 8) >> 4);
            to[2 * i + 1] = (uint8_t)((uint16_t)(3 * sums[i] + sums[i + 1] + 7) >> 4);
        }
    else
        for (int i = 0; i < n; i++) {
            to[2 * i] = (uint8_t)((uint16_t)(3 * sums[i] + sums[i - 1] + 1) >> 2);
            to[2 * i + 1] = (uint8_t)((uint16_t)(3 * sums[i] + sums[i + 1] + 2) >> 2);
        }
    return to + left % 2;
}

/* R = Y + 1.402 Cr, G = Y - 0.34414 Cb - 0.71414 Cr, B = Y + 1.772 Cb, with 16-bit constants, rounded. */
static TARGET void NAMED(colour)(const uint8_t *y, const uint8_t *cb, const uint8_t *cr, int n, uint8_t *to) {
#if AVX2
    const __m256i middle = _mm256_set1_epi16(128), half = _mm256_set1_epi32(32768);
    /* The constants do not fit into 16 bits: 1.402 is 1 + 26345 / 2^16, 1.772 is 2 - 14942 / 2^16, and so on. */
    const __m256i red = _mm256_set1_epi16(26345), blue = _mm256_set1_epi16(-14942);
    const __m256i green = _mm256_set1_epi32((int)((uint32_t)18734 << 16 | (uint16_t)-22554));
    const __m256i rg_16 =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 8, -1, 1, 9, -1, 2, 10, -1, 3, 11, -1, 4, 12, -1, 5));
    const __m256i b_16 =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(-1, -1, 0, -1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4, -1));
    const __m256i rg_8 =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(13, -1, 6, 14, -1, 7, 15, -1, -1, -1, -1, -1, -1, -1, -1, -1));
    const __m256i b_8 =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(-1, 5, -1, -1, 6, -1, -1, 7, -1, -1, -1, -1, -1, -1, -1, -1));
    for (int x = 0; x < n; x += 16, to += 48) {
        __m256i luma = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(y + x)));
        __m256i b = _mm256_sub_epi16(_mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(cb + x))), middle);
        __m256i r = _mm256_sub_epi16(_mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(cr + x))), middle);
        __m256i low = _mm256_madd_epi16(_mm256_unpacklo_epi16(b, r), green);
        __m256i high = _mm256_madd_epi16(_mm256_unpackhi_epi16(b, r), green);
        low = _mm256_srai_epi32(_mm256_add_epi32(low, half), 16),
        high = _mm256_srai_epi32(_mm256_add_epi32(high, half), 16);
        __m256i g = _mm256_add_epi16(_mm256_sub_epi16(luma, r), _mm256_packs_epi32(low, high));
        __m256i carry = _mm256_srli_epi16(_mm256_mullo_epi16(r, red), 15); /* the bit that rounds */
        r = _mm256_add_epi16(_mm256_add_epi16(luma, r), _mm256_add_epi16(_mm256_mulhi_epi16(r, red), carry));
        carry = _mm256_srli_epi16(_mm256_mullo_epi16(b, blue), 15);
        b = _mm256_add_epi16(_mm256_add_epi16(_mm256_add_epi16(luma, b), b),
                             _mm256_add_epi16(_mm256_mulhi_epi16(b, blue), carry));
        __m256i rg = _mm256_packus_epi16(r, g), bb = _mm256_packus_epi16(b, b); /* 8 pixels in each half */
        __m256i sixteen = _mm256_or_si256(_mm256_shuffle_epi8(rg, rg_16), _mm256_shuffle_epi8(bb, b_16));
        __m256i eight = _mm256_or_si256(_mm256_shuffle_epi8(rg, rg_8), _mm256_shuffle_epi8(bb, b_8));
        _mm_storeu_si128((__m128i *)to, _mm256_castsi256_si128(sixteen));
        _mm_storel_epi64((__m128i *)(to + 16), _mm256_castsi256_si128(eight));
        _mm_storeu_si128((__m128i *)(to + 24), _mm256_extracti128_si256(sixteen, 1));
        _mm_storel_epi64((__m128i *)(to + 40), _mm256_extracti128_si256(eight, 1));
    }
#else
    for (int x = 0; x < n; x++, to += 3) {
        int b = cb[x] - 128, r = cr[x] - 128;
        int red = y[x] + ((91881 * r + 32768) >> 16), blue = y[x] + ((116130 * b + 32768) >> 16);
        int green = y[x] + ((-22554 * b - 46802 * r + 32768) >> 16);
        to[0] = (uint8_t)(red < 0 ? 0 : red > 255 ? 255 : red);
        to[1] = (uint8_t)(green < 0 ? 0 : green > 255 ? 255 : green);
        to[2] = (uint8_t)(blue < 0 ? 0 : blue > 255 ? 255 : blue);
    }
#endif
}

static TARGET void NAMED(pixels)(const Source *source, int y, int left, int right, Chroma *scratch, uint8_t *to) {
    const uint8_t *luma = NAMED(row)(&source->y, y) + (left - source->y.left), *cb, *cr;
    if (source->grey) {
        for (int x = 0; x < right - left; x++) to[3 * x] = to[3 * x + 1] = to[3 * x + 2] = luma[x];
        return;
    }
    if (source->h == 1) {
        cb = NAMED(row)(&source->cb, y) + (left - source->cb.left);
        cr = NAMED(row)(&source->cr, y) + (left - source->cr.left);
    } else {
        cb = NAMED(upsample)(&source->cb, source->v, y, left, right, scratch, scratch->cb);
        cr = NAMED(upsample)(&source->cr, source->v, y, left, right, scratch, scratch->cr);
    }
    NAMED(colour)(luma, cb, cr, right - left, to);
}

/* ---- resizing ---------------------------------------------------------------------------------------------------- */

#if AVX2
/* Two weights, side by side in all of a register. */
static TARGET inline __m256i NAMED(both)(const int16_t *weight) {
    int32_t both;
    memcpy(&both, weight, 4);
    return _mm256_set1_epi32(both);
}

static TARGET inline __attribute__((always_inline)) void
NAMED(across_taps)(const Filter *filter, int taps, const uint8_t *a, const uint8_t *b, uint8_t *to_a, uint8_t *to_b) {
    /* Row a in the lower half of a register, row b in the upper; four pixels of input, two to a product. */
    const __m256i two =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1));
    const __m256i next =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1));
    const __m256i squeeze =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1));
    const __m256i half = _mm256_set1_epi32(1 << (filter->bits - 1));
    const __m128i shift = _mm_cvtsi32_si128(filter->bits);
    const int16_t *weight = filter->weight;
    const int32_t *first = filter->first;
    for (int i = 0; i < filter->size;
         i += 4, to_a += 12, to_b += 12) { /* outputs come in fours: make_filter pads them */
        __m256i sum[4];
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++, weight += taps) {
            const uint8_t *in_a = a + 3 * (size_t)first[i + j], *in_b = b + 3 * (size_t)first[i + j];
            sum[j] = half;
#pragma GCC unroll 2
            for (int t = 0; t < taps; t += 4) {
                __m256i in = _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(in_a + 3 * t)));
                in = _mm256_inserti128_si256(in, _mm_loadu_si128((const __m128i *)(in_b + 3 * t)), 1);
                __m256i by = NAMED(both)(weight + t);
                sum[j] = _mm256_add_epi32(sum[j], _mm256_madd_epi16(_mm256_shuffle_epi8(in, two), by));
                by = NAMED(both)(weight + t + 2);
                sum[j] = _mm256_add_epi32(sum[j], _mm256_madd_epi16(_mm256_shuffle_epi8(in, next), by));
            }
            sum[j] = _mm256_sra_epi32(sum[j], shift);
        }
        __m256i four = _mm256_packus_epi16(_mm256_packs_epi32(sum[0], sum[1]), _mm256_packs_epi32(sum[2], sum[3]));
        four = _mm256_shuffle_epi8(four, squeeze);
        _mm_storeu_si128((__m128i *)to_a, _mm256_castsi256_si128(four));
        _mm_storeu_si128((__m128i *)to_b, _mm256_extracti128_si256(four, 1));
    }
}

static TARGET void NAMED(across)(const Filter *filter, const uint8_t *a, const uint8_t *b, uint8_t *to_a,
                                 uint8_t *to_b) {
    if (filter->taps ==
        4) /* enlarging, and all that makes of ImageNet's photos are these two: loops that are unrolled */
        NAMED(across_taps)(filter, 4, a, b, to_a, to_b);
    else if (filter->taps == 8)
        NAMED(across_taps)(filter, 8, a, b, to_a, to_b);
    else
        NAMED(across_taps)(filter, filter->taps, a, b, to_a, to_b);
}
#else
static void NAMED(across)(const Filter *filter, const uint8_t *a, const uint8_t *b, uint8_t *to_a, uint8_t *to_b) {
    const int taps = filter->taps, bits = filter->bits;
    for (int i = 0; i < filter->size; i++) {
        const int16_t *weight = filter->weight + (size_t)i * (size_t)taps;
        int at = 3 * filter->first[i];
        for (int c = 0; c < 3; c++) {
            int32_t sum_a = 1 << (bits - 1), sum_b = sum_a;
            for (int t = 0; t < taps; t++) {
                sum_a += weight[t] * a[at + 3 * t + c];
                sum_b += weight[t] * b[at + 3 * t + c];
            }
            sum_a >>= bits, sum_b >>= bits;
            to_a[3 * i + c] = (uint8_t)(sum_a > 255 ? 255 : sum_a);
            to_b[3 * i + c] = (uint8_t)(sum_b > 255 ? 255 : sum_b);
        }
    }
}
#endif

static TARGET void NAMED(down)(const Filter *filter, int i, const uint8_t *rows, size_t stride, size_t n, uint8_t *to) {
    const int taps = filter->taps, bits = filter->bits;
    const int16_t *weight = filter->weight + (size_t)i * (size_t)taps;
#if AVX2
    const __m256i zero = _mm256_setzero_si256(), half = _mm256_set1_epi32(1 << (bits - 1));
    const __m128i shift = _mm_cvtsi32_si128(bits);
    for (size_t x = 0; x < n; x += 32) {
        __m256i sum[4] = {half, half, half, half};
        for (int t = 0; t < taps; t += 2) {
            if (weight[t] == 0 && weight[t + 1] == 0) continue;
            const __m256i by = NAMED(both)(weight + t);
            __m256i a = _mm256_loadu_si256((const __m256i *)(rows + (size_t)t * stride + x));
            __m256i b = _mm256_loadu_si256((const __m256i *)(rows + (size_t)(t + 1) * stride + x));
            __m256i low = _mm256_unpacklo_epi8(a, b), high = _mm256_unpackhi_epi8(a, b);
            sum[0] = _mm256_add_epi32(sum[0], _mm256_madd_epi16(_mm256_unpacklo_epi8(low, zero), by));
            sum[1] = _mm256_add_epi32(sum[1], _mm256_madd_epi16(_mm256_unpackhi_epi8(low, zero), by));
            sum[2] = _mm256_add_epi32(sum[2], _mm256_madd_epi16(_mm256_unpacklo_epi8(high, zero), by));
            sum[3] = _mm256_add_epi32(sum[3], _mm256_madd_epi16(_mm256_unpackhi_epi8(high, zero), by));
        }
        for (int j = 0; j < 4; j++) sum[j] = _mm256_sra_epi32(sum[j], shift);
        __m256i all = _mm256_packus_epi16(_mm256_packs_epi32(sum[0], sum[1]), _mm256_packs_epi32(sum[2], sum[3]));
        _mm256_storeu_si256((__m256i *)(to + x), all);
    }
#else
    for (size_t x = 0; x < n; x++) {
        int32_t sum = 1 << (bits - 1);
        for (int t = 0; t < taps; t++) sum += weight[t] * rows[(size_t)t * stride + x];
        sum >>= bits;
        to[x] = (uint8_t)(sum > 255 ? 255 : sum);
    }
#endif
}

static const Kernels NAMED(kernels) = {NAMED(inverse_dct), NAMED(pixels), NAMED(across), NAMED(down)};
