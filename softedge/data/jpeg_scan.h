/* The entropy-coded data of a JPEG file (ITU T.81, F.2.2), for jpeg.c.

   Most of the time of decoding is spent here, one coefficient waiting for the length of the one before it. So a lookup
   of LOOK bits gives up to two coefficients with their values, the bits come from a register that is filled up without
   a branch, and the zeros that are stuffed after 0xFF are removed beforehand.

   The input is not trusted. An interval is read from a copy that ends in LONGEST_MCU zero bytes, so that one check
   after each MCU suffices. */

#include <limits.h>
#include <stdlib.h>

#include "jpeg_header.h"

enum {
    LOOK = 11, /* bits of a lookup of AC coefficients: two tables of 16 KB are about what the first cache holds */
    DC_LOOK = 10,
    END = 128,          /* what the end of a block adds to the position: no coefficient reaches it */
    LARGEST = 8191,     /* of a dequantised coefficient: a sane picture has 1024, and sums of two stay within 16 bits */
    LONGEST_MCU = 2048, /* bytes: 6 blocks of at most 64 * 27 bits, and 8 more that are read ahead */
};

/* From zigzag positions to places in a block, and to one behind it for all that is no position. */
static const uint8_t natural[2 * END] = {
    0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18,
    11, 4,  5,  12, 19, 26, 33, 40, 48, 41, 34, 27, 20,
    13, 6,  7,  14, 21, 28, 35, 42, 49, 56, 57, 50, 43,
    36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45,
    38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63, [64 ... 2 * END - 1] = 64,
};

/* ---- Huffman tables ---------------------------------------------------------------------------------------------- */

/* What LOOK bits begin with, one or two whole coefficients with their values:
     bits 0-7    bits used; 0: see below
     bits 8-15   how far the first coefficient is from the last one
     bits 16-23  how far the second is; the same when there is only one, which is then written twice
     bits 32-47, 48-63  their values
   The end of a block is a 0 far outside. When a value is too long for the lookup: bits 8-15 are the length of the code,
   bits 16-23 the symbol; all 0 when the code itself is too long. */
typedef struct {
    uint64_t look[1 << LOOK];
    uint32_t beyond[17]; /* 16 bits that are no code of this length or a shorter one begin here */
    int32_t offset[17];  /* from a code to the number of its symbol */
    const uint8_t *symbols;
} AcTable;

/* Bits 0-7: bits used, 16-31: the difference; or, as above, bits 8-15: the length of the code, 16-23: the symbol. */
typedef struct {
    uint32_t look[1 << DC_LOOK];
    uint32_t beyond[17];
    int32_t offset[17];
    const uint8_t *symbols;
} DcTable;

typedef struct {
    uint8_t length, symbol; /* length 0: a longer code, or none */
} Code;

static void order_codes(const Codes *codes, int look, Code *first, uint32_t *beyond, int32_t *offset) {
    uint32_t code = 0;
    int number = 0;
    memset(first, 0, sizeof(Code) << look);
    beyond[0] = 0, offset[0] = 0;
    for (int bits = 1; bits <= 16; bits++) {
        offset[bits] = number - (int32_t)code;
        for (int i = 0; i < codes->counts[bits]; i++, code++, number++)
            if (bits <= look)
                for (int fill = 0; fill < 1 << (look - bits); fill++)
                    first[(code << (look - bits)) + (uint32_t)fill] = (Code){(uint8_t)bits, codes->symbols[number]};
        beyond[bits] = code << (16 - bits);
        code <<= 1;
    }
}

/* The value of ``size`` bits that follow a code (T.81, F.2.2.1). */
static inline int extended(uint32_t bits, int size) { return (int)bits - (bits >> (size - 1) ? 0 : (1 << size) - 1); }

static uint32_t bits_at(uint32_t index, int look, int from, int count) {
    return index >> (look - from - count) & ((1u << count) - 1);
}

/* One symbol with its value within ``room`` bits from ``from`` on: bits used, or 0 when it does not fit. */
static int whole(const Code *first, uint32_t index, int from, int largest_size, int *skip, int *value) {
    Code code = first[index << from & ((1 << LOOK) - 1)];
    int size = code.symbol & 15, run = code.symbol >> 4;
    if (code.length == 0 || from + code.length + size > LOOK || size > largest_size) return 0;
    if (size == 0 && run != 0 && run != 15) return 0;
    *skip = code.symbol == 0 ? END : run + 1;
    *value = size == 0 ? 0 : extended(bits_at(index, LOOK, from + code.length, size), size);
    return code.length + size;
}

static void make_ac(AcTable *table, const Codes *codes, int largest_quant) {
    Code first[1 << LOOK];
    int largest_size = 10;
    while (((1 << largest_size) - 1) * largest_quant > LARGEST) largest_size--; /* longer ones are checked one by one */
    order_codes(codes, LOOK, first, table->beyond, table->offset);
    table->symbols = codes->symbols;
    for (uint32_t index = 0; index < 1 << LOOK; index++) {
        int skip, value, next, other;
        int used = whole(first, index, 0, largest_size, &skip, &value);
        if (used == 0) {
            table->look[index] = (uint64_t)first[index].length << 8 | (uint64_t)first[index].symbol << 16;
            continue;
        }
        int more = skip == END ? 0 : whole(first, index, used, largest_size, &next, &other);
        if (more == 0) next = 0, other = value;
        table->look[index] = (uint64_t)(used + more) | (uint64_t)skip << 8 | (uint64_t)(skip + next) << 16 |
                             (uint64_t)(uint16_t)value << 32 | (uint64_t)(uint16_t)other << 48;
    }
}

static void make_dc(DcTable *table, const Codes *codes) {
    Code first[1 << DC_LOOK];
    order_codes(codes, DC_LOOK, first, table->beyond, table->offset);
    table->symbols = codes->symbols;
    for (uint32_t index = 0; index < 1 << DC_LOOK; index++) {
        int length = first[index].length, size = first[index].symbol;
        if (length > 0 && length + size <= DC_LOOK) {
            int value = size == 0 ? 0 : extended(bits_at(index, DC_LOOK, length, size), size);
            table->look[index] = (uint32_t)(length + size) | (uint32_t)(uint16_t)value << 16;
        } else {
            table->look[index] = (uint32_t)length << 8 | (uint32_t)size << 16;
        }
    }
}

/* ---- entropy decoding -------------------------------------------------------------------------------------------- */

typedef struct {
    uint64_t bits;     /* the next bits, the first one highest */
    int count;         /* how many of them are surely there */
    const uint8_t *at; /* where the next byte to fill in comes from */
} Reader;

static inline uint64_t eight_bytes(const uint8_t *at) {
    uint64_t value;
    memcpy(&value, at, 8);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    value = __builtin_bswap64(value);
#endif
    return value;
}

/* At least 56 bits. Bits below ``count`` may be there already: the same ones are laid over them. */
static inline __attribute__((always_inline)) void fill(Reader *r) {
    r->bits |= eight_bytes(r->at) >> r->count;
    r->at += (63 - r->count) >> 3;
    r->count |= 56;
}

static inline __attribute__((always_inline)) void use(Reader *r, int bits) {
    r->bits <<= bits;
    r->count -= bits;
}

/* The symbol of a code whose length is above ``known``; -1 when there is none. */
static inline __attribute__((always_inline)) int long_code(Reader *r, const uint32_t *beyond, const int32_t *offset,
                                                           const uint8_t *symbols, int known) {
    uint32_t next = (uint32_t)(r->bits >> 48);
    for (int length = known + 1; length <= 16; length++)
        if (next < beyond[length]) {
            use(r, length);
            return symbols[(int32_t)(next >> (16 - length)) + offset[length]];
        }
    return -1;
}

/* The difference of DC; INT_MAX when the code is none. */
static inline __attribute__((always_inline)) int read_dc(Reader *r, const DcTable *table) {
    fill(r);
    uint32_t entry = table->look[r->bits >> (64 - DC_LOOK)];
    if (__builtin_expect((entry & 255) != 0, 1)) {
        use(r, (int)(entry & 255));
        return (int16_t)(entry >> 16);
    }
    int size = (int)(entry >> 16);
    if (entry != 0)
        use(r, (int)(entry >> 8 & 255));
    else
        size = long_code(r, table->beyond, table->offset, table->symbols, DC_LOOK);
    if (size < 0 || size > 11) return INT_MAX;
    if (size == 0) return 0;
    uint32_t bits = (uint32_t)(r->bits >> (64 - size));
    use(r, size);
    return extended(bits, size);
}

typedef struct {
    int skip, value; /* skip 0: not mine */
} Coefficient;

/* One coefficient the long way. */
static inline __attribute__((always_inline)) Coefficient read_ac(Reader *r, const AcTable *table) {
    fill(r);
    uint64_t entry = table->look[r->bits >> (64 - LOOK)];
    int symbol = (int)(entry >> 16 & 255);
    if ((entry & 255) == 0 && entry != 0)
        use(r, (int)(entry >> 8 & 255));
    else
        symbol = long_code(r, table->beyond, table->offset, table->symbols, entry == 0 ? LOOK : 0);
    if (symbol == 0) return (Coefficient){END, 0};
    if (symbol == 0xF0) return (Coefficient){16, 0};
    int size = symbol & 15;
    if (symbol < 0 || size == 0 || size > 10) return (Coefficient){0, 0};
    uint32_t bits = (uint32_t)(r->bits >> (64 - size));
    use(r, size);
    return (Coefficient){(symbol >> 4) + 1, extended(bits, size)};
}

/* Let the reader stand ``bits`` earlier. */
static void step_back(Reader *r, int bits) {
    int back = r->count + bits, bytes = (back + 7) / 8;
    *r = (Reader){0, 0, r->at - bytes};
    fill(r);
    use(r, 8 * bytes - back);
}

typedef int16_t Eight __attribute__((vector_size(16)));

typedef struct {
    const DcTable *dc;
    const AcTable *ac;
    const uint16_t *quant;
    int largest_dc, sum; /* sum: the DC of the last block */
} Decoder;

/* A block of coefficients, natural order, not yet dequantised; when not ``keep`` it is stepped over. There is room for
   one number behind it. Returns the zigzag position of the last coefficient, or -1. */
static inline __attribute__((always_inline)) int read_block(Reader *r, Decoder *d, bool keep, int16_t *block) {
    const AcTable *table = d->ac;
    int k = 0;
    int difference = read_dc(r, d->dc);
    if (difference == INT_MAX) return -1;
    d->sum += difference;
    if (d->sum < -d->largest_dc || d->sum > d->largest_dc) return -1;
    if (keep) {
        for (int i = 0; i < 8; i++) memcpy(block + 8 * i, &(Eight){0}, 16); /* a memset of 128 bytes is a call */
        block[0] = (int16_t)d->sum;
    }
    for (;;) {
        uint64_t entry;
        fill(r);
        for (int lookups = 0; lookups < 4; lookups++) { /* 4 * LOOK bits are there */
            entry = table->look[r->bits >> (64 - LOOK)];
            if (__builtin_expect((entry & 255) == 0, 0)) goto slowly;
            if (keep) {
                block[natural[k + (int)(entry >> 8 & 255)]] = (int16_t)(entry >> 32);
                block[natural[k + (int)(entry >> 16 & 255)]] = (int16_t)(entry >> 48);
            }
            k += (int)(entry >> 16 & 255);
            use(r, (int)(entry & 255));
            if (k >= 63) goto ended;
        }
        continue;
ended:
        if (k == 63) return 63;
        if (k >= END && k < END + 63) return k - END;
        /* The first of two coefficients was the block's last, and the second belongs to the next; or it is not mine. */
        step_back(r, (int)(entry & 255));
        k -= (int)(entry >> 16 & 255);
slowly:;
        Coefficient c = read_ac(r, table);
        if (c.skip == 0) return -1;
        k += c.skip;
        if (k >= END) return k - END;
        if (k > 63 || (c.value < 0 ? -c.value : c.value) * d->quant[k] > LARGEST) return -1;
        if (keep) block[natural[k]] = (int16_t)c.value;
        if (k == 63) return 63;
    }
}

typedef struct {
    Header *head;
    const uint8_t *source, *end; /* what is left of the file */
    uint8_t *copy;               /* the interval being read, without stuffing */
    size_t length;
    const uint8_t *limit; /* a reader beyond it has read more than there is */
    int64_t left;         /* MCUs until the next restart marker */
    int restarts;
    Reader reader;
    Decoder decoder[3];
    DcTable dc[2];
    AcTable ac[2];
} Scan;

/* Copy the data up to the next marker without the zeros that are stuffed after 0xFF; false when there is no marker. */
static bool begin_interval(Scan *s) {
    uint8_t *out = s->copy;
    const uint8_t *at = s->source, *mark;
    for (;; at = mark + 2) {
        mark = memchr(at, 0xFF, (size_t)(s->end - at));
        if (mark == NULL || s->end - mark < 2) return false;
        memcpy(out, at, (size_t)(mark - at));
        out += mark - at;
        if (mark[1] != 0) break;
        *out++ = 0xFF;
    }
    memset(out, 0, LONGEST_MCU);
    s->source = mark, s->length = (size_t)(out - s->copy), s->limit = out + 8;
    s->reader = (Reader){0, 0, s->copy};
    s->left = s->head->interval ? s->head->interval : INT64_MAX;
    for (int i = 0; i < 3; i++) s->decoder[i].sum = 0;
    return true;
}

/* Whether the interval ends where its last MCU does, with less than a byte of padding, and ``marker`` follows. */
static bool ends_with(const Scan *s, int marker) {
    int64_t left = 8 * (int64_t)s->length - (8 * (int64_t)(s->reader.at - s->copy) - s->reader.count);
    return left >= 0 && left < 8 && s->source[1] == marker;
}

static bool next_interval(Scan *s) {
    if (!ends_with(s, 0xD0 + s->restarts % 8)) return false;
    s->restarts++, s->source += 2;
    return begin_interval(s);
}

/* ``count`` MCUs of a row, kept from place ``place`` on when ``keep``. */
static inline __attribute__((always_inline)) bool read_mcus(Scan *s, int count, bool keep, int place) {
    Header *head = s->head;
    Reader r = s->reader;
    for (int last = place + count; place < last; place++) {
        if (s->left == 0) {
            s->reader = r;
            if (!next_interval(s)) return false;
            r = s->reader;
        }
        s->left--;
        for (int i = 0; i < head->components; i++) {
            Component *c = &head->component[i];
            for (int y = 0; y < c->v; y++)
                for (int x = 0; x < c->h; x++) {
                    size_t at = (size_t)y * (size_t)(c->across + 1) + (size_t)(place * c->h + x);
                    int position = read_block(&r, &s->decoder[i], keep, c->blocks + 64 * at);
                    if (position < 0) return false;
                    if (keep) c->last[at] = (uint8_t)position;
                }
        }
        if (r.at > s->limit) return false;
    }
    s->reader = r;
    return true;
}

static bool keep_mcus(Scan *s, int count) { return read_mcus(s, count, true, 0); }
static bool skip_mcus(Scan *s, int count) { return read_mcus(s, count, false, 0); }
