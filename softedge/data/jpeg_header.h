/* Everything in a JPEG file before its entropy-coded data (ITU T.81, B.2), for jpeg.c. */

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "jpeg_kernels.h"

#define MAX_PIXELS 178956970 /* as in decoding.py */

typedef struct {
    bool defined;
    uint8_t counts[17]; /* codes of each length */
    uint8_t symbols[256];
} Codes;

typedef struct {
    int h, v;          /* sampling factors */
    int quant, dc, ac; /* numbers of the tables */
    int width, height; /* in samples */
    int id;
    Plane plane;     /* the samples of the MCUs that are kept */
    int16_t *blocks; /* coefficients of one row of MCUs, v rows of blocks */
    uint8_t *last;   /* of each of these blocks, the zigzag position of the last coefficient that may not be 0 */
    int across;      /* blocks in a row of them, even */
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
        if (marker == 0xDB)
            fine = read_quant(head, body, length);
        else if (marker == 0xC4)
            fine = read_codes(head, body, length);
        else if (marker == 0xC0 || marker == 0xC1)
            fine = read_frame(head, body, length), head->frame = at;
        else if (marker == 0xDD)
            fine = length == 2, head->interval = fine ? word(body) : 0;
        else if (marker == 0xDA)
            return head->scan = at + 4 + (size_t)length, read_scan(head, body, length);
        else if (marker == 0xE0) /* libjpeg warns of another version than 1, and so such a file goes to Pillow today */
            fine = length < 14 || memcmp(body, "JFIF", 5) != 0 || body[5] == 1;
        else if (marker == 0xEE) /* 1 is YCbCr, 0 is RGB */
            fine = length < 12 || memcmp(body, "Adobe", 5) != 0 || body[11] == 1;
        else
            fine = marker == 0xFE || (marker > 0xE0 && marker <= 0xEF);
        if (!fine) return false;
        at += 4 + (size_t)length;
    }
    return false;
}
