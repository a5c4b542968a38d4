/* Ordinary JPEG, and only as much of it as the crops of a picture need.

   Baseline and extended sequential Huffman frames (ITU T.81), 8 bits, one interleaved scan; grey, or YCbCr in 4:4:4,
   4:2:2 or 4:2:0. Anything else and anything irregular is "not mine" (0): the caller has another decoder, which decides
   what a damaged or unusual file is worth. Where the answer is 1, the pixels are those of libjpeg-turbo with its
   defaults, bit for bit: its exact inverse DCT, triangle upsampling of chroma and fixed-point colour conversion.

   The whole scan is always read, so that a damaged file is noticed whichever part of it was asked for; but blocks that no
   crop shows are only stepped over. There is no state between calls, and a call may come from any thread.

   The input is not trusted. Lengths are checked where they are read. The scan is decoded from a copy without stuffing
   that ends in LONGEST_MCU zero bytes, so that one check after each MCU suffices. */

#include <limits.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "jpeg_kernels.h"

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

enum {
    ABI = 1,            /* raised with every change of what is exported */
    LOOK = 11,          /* bits of a lookup of AC coefficients: 16 KB a table, two of them fit into the first cache */
    DC_LOOK = 10,
    END = 128,          /* what the end of a block adds to the position: no coefficient reaches it */
    LARGEST = 8191,     /* of a dequantised coefficient: 11 bits of a sane picture, and the arithmetic stays within 16 */
    LONGEST_MCU = 2048, /* bytes: 6 blocks of at most 64 * 27 bits, and 8 more that are read ahead */
};
#define MAX_PIXELS 178956970 /* as in decoding.py */

/* From zigzag positions to places in a block, and to one behind it for all that is no position. */
static const uint8_t natural[2 * END] = {
    0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,  12, 19, 26, 33, 40, 48, 41,
    34, 27, 20, 13, 6,  7,  14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37,
    44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63, [64 ... 2 * END - 1] = 64,
};

/* ---- the header -------------------------------------------------------------------------------------------------- */

typedef struct {
    bool defined;
    uint8_t counts[17]; /* codes of each length */
    uint8_t symbols[256];
} Codes;

typedef struct {
    int h, v;           /* sampling factors */
    int quant, dc, ac;  /* numbers of the tables */
    int width, height;  /* in samples */
    int id;
    Plane plane;        /* the samples of the MCUs that are kept */
    int16_t *blocks;    /* coefficients of one row of MCUs, v rows of blocks */
    uint8_t *last;      /* of each of these blocks, the zigzag position of the last coefficient that may not be 0 */
    int across;         /* blocks in a row of them, even */
} Component;

typedef struct {
    int width, height, components, interval; /* interval: MCUs between restart markers, 0 without them */
    int h, v, mcus_across, mcus_down;
    size_t frame, scan; /* where the frame header and the entropy-coded data begin */
    Component component[3];
    bool has_quant[4];
    uint16_t quant[4][64]; /* in zigzag order */
    Codes codes[2][2];     /* [DC, AC][number] */
} Header;

static int word(const uint8_t *at) { return at[0] << 8 | at[1]; }

static bool read_quant(Header *head, const uint8_t *at, int length) {
    for (; length >= 65; at += 65, length -= 65) {
        if (at[0] > 3) return false; /* 16-bit values are for 12-bit pictures */
        head->has_quant[at[0]] = true;
        for (int k = 0; k < 64; k++) head->quant[at[0]][k] = at[1 + k];
    }
    return length == 0;
}

static bool read_codes(Header *head, const uint8_t *at, int length) {
    while (length >= 17) {
        int sum = 0, code = 0;
        if ((at[0] & ~0x11) != 0) return false;
        Codes *codes = &head->codes[at[0] >> 4][at[0] & 1];
        for (int bits = 1; bits <= 16; bits++) {
            codes->counts[bits] = at[bits];
            sum += at[bits];
            code += at[bits];
            if (code >= 1 << bits) return false; /* more codes than there are; the one of ones is forbidden */
            code <<= 1;
        }
        if (sum > 256 || length < 17 + sum) return false;
        for (int i = 0; i < sum && at[0] >> 4 == 0; i++)
            if (at[17 + i] > 15) return false; /* no number of bits */
        memset(codes->symbols, 0, sizeof codes->symbols);
        memcpy(codes->symbols, at + 17, (size_t)sum);
        codes->defined = true;
        at += 17 + sum, length -= 17 + sum;
    }
    return length == 0;
}

static bool read_frame(Header *head, const uint8_t *at, int length) {
    if (head->components != 0 || length < 6 || at[0] != 8) return false;
    head->height = word(at + 1), head->width = word(at + 3), head->components = at[5];
    if ((head->components != 1 && head->components != 3) || length != 6 + 3 * head->components) return false;
    if (head->width == 0 || head->height == 0 || (int64_t)head->width * head->height > MAX_PIXELS) return false;
    for (int i = 0; i < head->components; i++) {
        Component *c = &head->component[i];
        c->id = at[6 + 3 * i], c->h = at[7 + 3 * i] >> 4, c->v = at[7 + 3 * i] & 15, c->quant = at[8 + 3 * i];
        if (c->h < 1 || c->h > 4 || c->v < 1 || c->v > 4 || c->quant > 3) return false;
        /* Other numbers may mean RGB; libjpeg guesses then. */
        if (head->components == 3 && c->id != i + 1) return false;
    }
    Component *y = head->component;
    if (head->components == 1)
        y->h = y->v = 1; /* a scan of one component has no MCUs of several blocks, whatever is written there */
    else if (y[1].h != 1 || y[1].v != 1 || y[2].h != 1 || y[2].v != 1 || y->h > 2 || y->v > y->h)
        return false;
    head->h = y->h, head->v = y->v;
    head->mcus_across = (head->width + 8 * y->h - 1) / (8 * y->h);
    head->mcus_down = (head->height + 8 * y->v - 1) / (8 * y->v);
    for (int i = 0; i < head->components; i++) {
        y[i].width = (head->width * y[i].h + y->h - 1) / y->h;
        y[i].height = (head->height * y[i].v + y->v - 1) / y->v;
    }
    /* Chroma of one or two columns: libjpeg then repeats samples instead of interpolating. */
    return y->h == 1 || y[1].width > 2;
}

static bool read_scan(Header *head, const uint8_t *at, int length) {
    int n = head->components;
    if (n == 0 || length != 4 + 2 * n || at[0] != n) return false;
    for (int i = 0; i < n; i++) {
        Component *c = &head->component[i];
        c->dc = at[2 + 2 * i] >> 4, c->ac = at[2 + 2 * i] & 15;
        if (at[1 + 2 * i] != c->id || c->dc > 1 || c->ac > 1 || !head->has_quant[c->quant]) return false;
        if (!head->codes[0][c->dc].defined || !head->codes[1][c->ac].defined) return false;
    }
    return at[1 + 2 * n] == 0 && at[2 + 2 * n] == 63 && at[3 + 2 * n] == 0;
}

/* Everything up to the entropy-coded data; false when the picture is not mine. */
static bool read_header(Header *head, const uint8_t *data, size_t size) {
    memset(head, 0, sizeof *head);
    if (size < 4 || data[0] != 0xFF || data[1] != 0xD8) return false;
    for (size_t at = 2; size - at >= 4;) {
        int marker = data[at + 1], length = word(data + at + 2);
        if (data[at] != 0xFF || length < 2 || size - at < (size_t)length + 2) return false;
        const uint8_t *body = data + at + 4;
        bool fine = true;
        length -= 2;
        if (marker == 0xDB) fine = read_quant(head, body, length);
        else if (marker == 0xC4) fine = read_codes(head, body, length);
        else if (marker == 0xC0 || marker == 0xC1) fine = read_frame(head, body, length), head->frame = at;
        else if (marker == 0xDD) fine = length == 2, head->interval = fine ? word(body) : 0;
        else if (marker == 0xDA) return head->scan = at + 4 + (size_t)length, read_scan(head, body, length);
        else if (marker == 0xE0) /* libjpeg warns of another version than 1, and so such a file goes to Pillow today */
            fine = length < 14 || memcmp(body, "JFIF", 5) != 0 || body[5] == 1;
        else if (marker == 0xEE) /* 1 is YCbCr, 0 is RGB */
            fine = length < 12 || memcmp(body, "Adobe", 5) != 0 || body[11] == 1;
        else fine = marker == 0xFE || (marker > 0xE0 && marker <= 0xEF);
        if (!fine) return false;
        at += 4 + (size_t)length;
    }
    return false;
}

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

/* bits 0-7: bits used, bits 16-31 the difference; or, as above, bits 8-15 the length of the code and 16-23 the symbol. */
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
static inline int extended(uint32_t bits, int size) {
    return (int)bits - (bits >> (size - 1) ? 0 : (1 << size) - 1);
}

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

/* A block of coefficients, natural order, not yet dequantised; when not ``keep`` it is stepped over. There is room for one
   number behind it. Returns the zigzag position of the last coefficient, or -1. */
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

/* ---- from a file to samples -------------------------------------------------------------------------------------- */

typedef struct {
    int left, top, right, bottom;
} Area;

static int at_most(int a, int b) { return a < b ? a : b; }
static int at_least(int a, int b) { return a > b ? a : b; }

/* The MCUs whose samples the pixels of ``area`` are made of: upsampling looks one sample of chroma further. */
static Area mcus_of(const Header *head, Area area) {
    const Component *last = &head->component[head->components - 1];
    int x = head->h > 1, y = head->v > 1;
    return (Area){
        at_least(area.left / head->h - x, 0) / 8,
        at_least(area.top / head->v - y, 0) / 8,
        at_most((area.right - 1) / head->h + x, last->width - 1) / 8 + 1,
        at_most((area.bottom - 1) / head->v + y, last->height - 1) / 8 + 1,
    };
}

static void release(Header *head) {
    for (int i = 0; i < 3; i++) {
        free(head->component[i].blocks), free(head->component[i].last), free(head->component[i].plane.samples);
    }
}

static bool allocate(Header *head, Area mcus) {
    for (int i = 0; i < head->components; i++) {
        Component *c = &head->component[i];
        c->across = ((mcus.right - mcus.left) * c->h + 1) & ~1; /* the inverse DCT takes two blocks at once */
        size_t blocks = (size_t)(c->across + 1) * (size_t)c->v;
        c->plane = (Plane){NULL, (size_t)c->across * 8, mcus.left * c->h * 8, mcus.top * c->v * 8, c->width, c->height};
        size_t rows = (size_t)(mcus.bottom - mcus.top) * (size_t)c->v * 8;
        c->blocks = calloc(blocks * 64 + 64, sizeof *c->blocks);
        c->last = calloc(blocks, 1);
        c->plane.samples = malloc(rows * c->plane.stride + BEYOND);
        if (c->blocks == NULL || c->last == NULL || c->plane.samples == NULL) return false;
    }
    return true;
}

static bool make_tables(Scan *s) {
    Header *head = s->head;
    int largest[2] = {0, 0};
    bool has_dc[2] = {false, false};
    for (int i = 0; i < head->components; i++) {
        const Component *c = &head->component[i];
        for (int k = 1; k < 64; k++) largest[c->ac] = at_least(largest[c->ac], at_least(head->quant[c->quant][k], 1));
        has_dc[c->dc] = true;
        s->decoder[i] = (Decoder){&s->dc[c->dc], &s->ac[c->ac], head->quant[c->quant], 0, 0};
        s->decoder[i].largest_dc = LARGEST / at_least(head->quant[c->quant][0], 1);
    }
    for (int n = 0; n < 2; n++) {
        if (has_dc[n]) make_dc(&s->dc[n], &head->codes[0][n]);
        if (largest[n] > 0) make_ac(&s->ac[n], &head->codes[1][n], largest[n]);
    }
    return true;
}

/* Read the whole scan; keep the samples that the pixels of ``area`` need. */
static bool read_samples(Header *head, const uint8_t *data, size_t size, Area area, const Kernels *kernels) {
    Area mcus = mcus_of(head, area);
    int16_t quant[3][64];
    bool fine = false;
    Scan *s = malloc(sizeof *s);
    uint8_t *copy = malloc(size - head->scan + LONGEST_MCU);
    if (s == NULL || copy == NULL || !allocate(head, mcus)) goto out;
    s->head = head, s->source = data + head->scan, s->end = data + size, s->copy = copy, s->restarts = 0;
    make_tables(s);
    for (int i = 0; i < head->components; i++)
        for (int k = 0; k < 64; k++) quant[i][natural[k]] = (int16_t)head->quant[head->component[i].quant][k];
    if (!begin_interval(s)) goto out;
    for (int y = 0; y < head->mcus_down; y++) {
        if (y < mcus.top || y >= mcus.bottom) {
            if (!skip_mcus(s, head->mcus_across)) goto out;
            continue;
        }
        if (!skip_mcus(s, mcus.left) || !keep_mcus(s, mcus.right - mcus.left)) goto out;
        for (int i = 0; i < head->components; i++) {
            Component *c = &head->component[i];
            for (int v = 0; v < c->v; v++) {
                size_t row = (size_t)v * (size_t)(c->across + 1);
                uint8_t *to = c->plane.samples + ((size_t)(y - mcus.top) * (size_t)c->v + (size_t)v) * 8 * c->plane.stride;
                if (!kernels->inverse_dct(c->blocks + row * 64, c->last + row, c->across, quant[i], to, c->plane.stride))
                    goto out;
            }
        }
        if (!skip_mcus(s, head->mcus_across - mcus.right)) goto out;
    }
    fine = ends_with(s, 0xD9);
out:
    free(copy), free(s);
    return fine;
}

/* ---- from samples to crops --------------------------------------------------------------------------------------- */

/* Antialiased bilinear weights for ``from`` pixels to ``size``, as PyTorch and Pillow choose and round them: a triangle as
   wide as two input pixels or, when shrinking, two output pixels. ``flip``: the outputs in reverse. */
static bool make_filter(Filter *filter, int from, int size, bool flip) {
    double scale = (double)from / size, support = scale >= 1 ? scale : 1, inverse = scale >= 1 ? 1 / scale : 1, most = 0;
    size_t room = (size_t)(2 * support) + 2, taps = 4, outputs = ((size_t)size + 3) & ~(size_t)3;
    filter->size = size, filter->bits = 0;
    filter->first = calloc(outputs, sizeof *filter->first);
    double *weight = calloc((size_t)size * room, sizeof *weight);
    for (int i = 0; i < size && weight != NULL && filter->first != NULL; i++) {
        double centre = scale * (i + 0.5), total = 0, *w = weight + (size_t)i * room;
        int first = at_least((int)(centre - support + 0.5), 0);
        int count = at_most(at_most((int)(centre + support + 0.5), from) - first, (int)room);
        for (int t = 0; t < count; t++) {
            double distance = fabs((t + first - centre + 0.5) * inverse);
            w[t] = distance < 1 ? 1 - distance : 0;
            total += w[t];
        }
        for (int t = 0; t < count; t++) {
            w[t] /= total;
            if (w[t] > most) most = w[t];
        }
        while (count > 0 && w[count - 1] == 0) count--;
        while (taps < (size_t)count) taps += 4;
        filter->first[flip ? size - 1 - i : i] = first;
    }
    while (filter->bits < 22 && (int)(0.5 + most * (1 << (filter->bits + 1))) < 1 << 15) filter->bits++;
    filter->taps = (int)taps;
    filter->weight = calloc(outputs * taps, sizeof *filter->weight);
    bool fine = weight != NULL && filter->first != NULL && filter->weight != NULL;
    for (int i = 0; i < size && fine; i++)
        for (size_t t = 0; t < taps && t < room; t++)
            filter->weight[(size_t)(flip ? size - 1 - i : i) * taps + t] =
                (int16_t)(0.5 + weight[(size_t)i * room + t] * (1 << filter->bits));
    free(weight);
    return fine;
}

/* A crop on its way: rows come in from its top to its bottom and are resized across; then all of them are down. */
typedef struct {
    Area area;
    Filter across, down;
    uint8_t *rows, *row; /* the rows across; one row of the result, with room behind */
    size_t stride;
} Crop;

static void release_crop(Crop *c) {
    free(c->across.first), free(c->across.weight), free(c->down.first), free(c->down.weight);
    free(c->rows), free(c->row);
}

static bool make_crop(Crop *c, const int32_t box[4], int size, bool flip) {
    memset(c, 0, sizeof *c);
    c->area = (Area){box[0], box[1], box[0] + box[2], box[1] + box[3]};
    if (!make_filter(&c->across, box[2], size, flip) || !make_filter(&c->down, box[3], size, false)) return false;
    c->stride = (size_t)size * 3 + BEYOND;
    size_t rows = (size_t)box[3], beyond = (size_t)c->down.taps; /* rows of weight 0 are read, too */
    c->rows = malloc((rows + beyond) * c->stride);
    c->row = malloc(c->stride);
    if (c->rows == NULL || c->row == NULL) return false;
    memset(c->rows + rows * c->stride, 0, beyond * c->stride);
    return true;
}

/* Row y, and the one before it: two are done at once. Both are RGB from pixel ``left`` on. */
static void add_row(Crop *c, int y, int left, const uint8_t *before, const uint8_t *row, const Kernels *kernels) {
    if (y < c->area.top || y >= c->area.bottom) return;
    int i = y - c->area.top;
    size_t skip = 3 * (size_t)(c->area.left - left);
    uint8_t *to = c->rows + (size_t)i * c->stride;
    if (i % 2)
        kernels->across(&c->across, before + skip, row + skip, to - c->stride, to);
    else if (y == c->area.bottom - 1)
        kernels->across(&c->across, row + skip, row + skip, to, to);
}

static void finish_crop(Crop *c, uint8_t *to, const Kernels *kernels) {
    int size = c->down.size;
    size_t bytes = (size_t)size * 3;
    for (int i = 0; i < size; i++, to += bytes) {
        bool near_end = (size_t)(size - 1 - i) * bytes < BEYOND; /* elsewhere what is touched behind comes later */
        uint8_t *row = near_end ? c->row : to;
        kernels->down(&c->down, i, c->rows + (size_t)c->down.first[i] * c->stride, c->stride, bytes, row);
        if (near_end) memcpy(to, row, bytes);
    }
}

/* ---- what Python calls ------------------------------------------------------------------------------------------- */

EXPORT int softedge_jpeg_abi(void) { return ABI; }

/* Whether the processor has the instructions with which this was measured to be faster than other decoders. */
EXPORT int softedge_jpeg_fast(void) { return choose_kernels(0) != &kernels_plain; }

/* Width, height, and where the frame header is (Exif is before it); 0 when the picture is not mine. */
EXPORT int softedge_jpeg_head(const uint8_t *data, size_t size, int64_t found[3]) {
    Header head;
    if (!read_header(&head, data, size)) return 0;
    found[0] = head.width, found[1] = head.height, found[2] = (int64_t)head.frame;
    return 1;
}

static bool within(const int32_t box[4], int width, int height) {
    return box[0] >= 0 && box[1] >= 0 && box[2] >= 1 && box[3] >= 1 && box[0] <= width - box[2] && box[1] <= height - box[3];
}

/* Two rows of pixels and what is needed to make them, in one allocation. */
typedef struct {
    uint8_t *rows[2];
    Chroma chroma;
} Rows;

static bool make_rows(Rows *rows, int width, int taps) {
    size_t chroma = (size_t)width + 2 * BEYOND, row = 3 * ((size_t)width + (size_t)taps) + 2 * BEYOND;
    row += row % 2;
    chroma += chroma % 2;
    uint8_t *all = calloc(2 * row + 4 * chroma, 1); /* pixels of weight 0 are read, too */
    *rows = (Rows){{all, all + row}, {(uint16_t *)(void *)(all + 2 * row), all + 2 * row + 2 * chroma, all + 2 * row + 3 * chroma}};
    return all != NULL;
}

static Source source_of(const Header *head) {
    const Component *c = head->component;
    return (Source){c[0].plane, c[1].plane, c[2].plane, head->components == 1, head->h, head->v};
}

/* The pixels of a box (left, top, width, height) within the picture, RGB, rows without gaps. 0: not mine. */
EXPORT int softedge_jpeg_decode(const uint8_t *data, size_t size, const int32_t box[4], uint8_t *rgb, int plain) {
    const Kernels *kernels = choose_kernels(plain);
    Header head;
    Rows rows = {{NULL, NULL}, {NULL, NULL, NULL}};
    if (!read_header(&head, data, size) || !within(box, head.width, head.height)) return 0;
    Area area = {box[0], box[1], box[0] + box[2], box[1] + box[3]};
    bool fine = read_samples(&head, data, size, area, kernels) && make_rows(&rows, box[2], 0);
    Source source = source_of(&head);
    for (int y = area.top; fine && y < area.bottom; y++, rgb += 3 * (size_t)box[2]) {
        kernels->pixels(&source, y, area.left, area.right, &rows.chroma, rows.rows[0]);
        memcpy(rgb, rows.rows[0], 3 * (size_t)box[2]);
    }
    free(rows.rows[0]), release(&head);
    return fine;
}

/* ``count`` <= 4 crops of one picture, each a box to size x size RGB pixels, mirrored where ``flips``. 0: not mine. */
EXPORT int softedge_jpeg_crops(const uint8_t *data, size_t size, int count, const int32_t *boxes, const uint8_t *flips,
                               int side, uint8_t *const *to, int plain) {
    const Kernels *kernels = choose_kernels(plain);
    Header head;
    Crop crops[4];
    int made = 0, taps = 0;
    Rows rows = {{NULL, NULL}, {NULL, NULL, NULL}};
    Area area = {INT_MAX, INT_MAX, 0, 0};
    if (count < 1 || count > 4 || side < 1 || side > 8192 || !read_header(&head, data, size)) return 0;
    bool fine = true;
    for (int i = 0; i < count && fine; i++)
        if ((fine = within(boxes + 4 * i, head.width, head.height))) {
            fine = make_crop(&crops[made++], boxes + 4 * i, side, flips[i] != 0);
            Area one = crops[i].area;
            area = (Area){at_most(area.left, one.left), at_most(area.top, one.top), at_least(area.right, one.right),
                          at_least(area.bottom, one.bottom)};
            taps = at_least(taps, crops[i].across.taps);
        }
    fine = fine && read_samples(&head, data, size, area, kernels) && make_rows(&rows, area.right - area.left, taps);
    Source source = source_of(&head);
    for (int y = area.top; fine && y < area.bottom; y++) {
        uint8_t *row = rows.rows[y % 2], *before = rows.rows[(y + 1) % 2];
        kernels->pixels(&source, y, area.left, area.right, &rows.chroma, row);
        for (int i = 0; i < count; i++) add_row(&crops[i], y, area.left, before, row, kernels);
    }
    for (int i = 0; i < made; i++) {
        if (fine) finish_crop(&crops[i], to[i], kernels);
        release_crop(&crops[i]);
    }
    free(rows.rows[0]), release(&head);
    return fine;
}

/* A box of RGB pixels in memory, ``stride`` bytes a row, to side x side pixels, mirrored if ``flip``. 0: no memory. */
EXPORT int softedge_resize(const uint8_t *rgb, size_t stride, int width, int height, int flip, int side, uint8_t *to,
                           int plain) {
    const Kernels *kernels = choose_kernels(plain);
    const int32_t box[4] = {0, 0, width, height};
    Crop crop;
    Rows rows = {{NULL, NULL}, {NULL, NULL, NULL}};
    if (width < 1 || height < 1 || side < 1 || side > 8192) return 0;
    bool fine = make_crop(&crop, box, side, flip != 0) && make_rows(&rows, width, crop.across.taps);
    for (int y = 0; fine && y < height; y++, rgb += stride) {
        memcpy(rows.rows[y % 2], rgb, 3 * (size_t)width); /* a row that may be read beyond its end */
        add_row(&crop, y, 0, rows.rows[(y + 1) % 2], rows.rows[y % 2], kernels);
    }
    if (fine) finish_crop(&crop, to, kernels);
    release_crop(&crop), free(rows.rows[0]);
    return fine;
}
