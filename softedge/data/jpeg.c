/* Ordinary JPEG, and only as much of it as the crops of a picture need.

   Baseline and extended sequential Huffman frames (ITU T.81), 8 bits, one interleaved scan; grey, or YCbCr in 4:4:4,
   4:2:2 or 4:2:0. Anything else and anything irregular is "not mine" (0): the caller has another decoder, which decides
   what a damaged or unusual file is worth. Where the answer is 1, the pixels are those of libjpeg-turbo with its
   defaults, bit for bit: its exact inverse DCT, triangle upsampling of chroma and fixed-point colour conversion.

   The whole scan is always read, so that a damaged file is noticed whichever part of it was asked for; but blocks that
   no crop shows are only stepped over. There is no state between calls, and a call may come from any thread.

   jpeg_header.h, jpeg_scan.h and jpeg_kernels.h are its parts: what comes first in a file, the coefficients, and the
   loops from coefficients to pixels. */

#include "jpeg_scan.h"

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

enum {
    ABI = 1,          /* raised with every change of what is exported */
    MOST_CROPS = 4,   /* of one file */
    MOST_SIDE = 8192, /* of a crop's result */
};

static double absolute(double x) { return x < 0 ? -x : x; }

typedef struct {
    int left, top, right, bottom;
} Area;

static int at_most(int a, int b) { return a < b ? a : b; }
static int at_least(int a, int b) { return a > b ? a : b; }

static Area area_of(const int32_t box[4]) { return (Area){box[0], box[1], box[0] + box[2], box[1] + box[3]}; }

/* ---- from pixels to crops ---------------------------------------------------------------------------------------- */

/* Antialiased bilinear weights for ``from`` pixels to ``size``, as PyTorch and Pillow choose and round them: a triangle
   as wide as two input pixels or, when shrinking, two output pixels. ``flip``: the outputs in reverse. */
static bool make_filter(Filter *filter, int from, int size, bool flip) {
    double scale = (double)from / size, support = scale >= 1 ? scale : 1, inverse = scale >= 1 ? 1 / scale : 1,
           most = 0;
    size_t room = (size_t)(2 * support) + 2, taps = 4, outputs = ((size_t)size + 3) & ~(size_t)3;
    filter->size = size, filter->bits = 0;
    filter->first = calloc(outputs, sizeof *filter->first);
    double *weight = calloc((size_t)size * room, sizeof *weight);
    for (int i = 0; i < size && weight != NULL && filter->first != NULL; i++) {
        double centre = scale * (i + 0.5), total = 0, *w = weight + (size_t)i * room;
        int first = at_least((int)(centre - support + 0.5), 0);
        int count = at_most(at_most((int)(centre + support + 0.5), from) - first, (int)room);
        for (int t = 0; t < count; t++) {
            double distance = absolute((t + first - centre + 0.5) * inverse);
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

static bool make_crop(Crop *c, Area area, int size, bool flip) {
    memset(c, 0, sizeof *c);
    c->area = area;
    if (!make_filter(&c->across, area.right - area.left, size, flip)) return false;
    if (!make_filter(&c->down, area.bottom - area.top, size, false)) return false;
    c->stride = (size_t)size * 3 + BEYOND;
    size_t rows = (size_t)(area.bottom - area.top), beyond = (size_t)c->down.taps; /* rows of weight 0 are read, too */
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

/* ---- from a file to pixels --------------------------------------------------------------------------------------- */

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
    if (all == NULL) return false;
    *rows = (Rows){{all, all + row},
                   {(uint16_t *)(void *)(all + 2 * row), all + 2 * row + 2 * chroma, all + 2 * row + 3 * chroma}};
    return true;
}

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
        c->plane = (Plane){NULL, (size_t)c->across * 8, mcus.left * c->h * 8, 16 * c->v - 1, c->width, c->height};
        size_t rows = (size_t)c->v * 16;
        c->blocks = calloc(blocks * 64 + 64, sizeof *c->blocks);
        c->last = calloc(blocks, 1);
        c->plane.samples = malloc(rows * c->plane.stride + BEYOND);
        if (c->blocks == NULL || c->last == NULL || c->plane.samples == NULL) return false;
    }
    return true;
}

static void make_tables(Scan *s) {
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
}

/* What is to be done with a file: the pixels of ``area`` to ``rgb``, if that is not NULL, and to some crops. */
typedef struct {
    const Kernels *kernels;
    Header head;
    Area area;
    uint8_t *rgb;
    int count;
    Crop crops[MOST_CROPS];
} Job;

/* Row y of the picture, whose samples are there. */
static void use_row(Job *job, Rows *rows, int y) {
    const Component *c = job->head.component;
    const Source source = {c[0].plane, c[1].plane, c[2].plane, job->head.components == 1, job->head.h, job->head.v};
    uint8_t *row = rows->rows[y % 2], *before = rows->rows[(y + 1) % 2];
    size_t bytes = 3 * (size_t)(job->area.right - job->area.left);
    job->kernels->pixels(&source, y, job->area.left, job->area.right, &rows->chroma, row);
    if (job->rgb) memcpy(job->rgb + (size_t)(y - job->area.top) * bytes, row, bytes);
    for (int i = 0; i < job->count; i++) add_row(&job->crops[i], y, job->area.left, before, row, job->kernels);
}

/* From the coefficients of row y of the MCUs to samples. */
static bool use_mcus(Job *job, int16_t quant[3][64], int y) {
    for (int i = 0; i < job->head.components; i++) {
        const Component *c = &job->head.component[i];
        for (int v = 0; v < c->v; v++) {
            size_t blocks = (size_t)v * (size_t)(c->across + 1), stride = c->plane.stride;
            uint8_t *to = c->plane.samples + (size_t)((y * c->v + v) * 8 & c->plane.mask) * stride;
            if (!job->kernels->inverse_dct(c->blocks + blocks * 64, c->last + blocks, c->across, quant[i], to, stride))
                return false;
        }
    }
    return true;
}

/* Read the whole scan, and use what ``area`` needs of it row by row, while it is in the processor's caches. */
static bool decode(Job *job, const uint8_t *data, size_t size) {
    Header *head = &job->head;
    Area area = job->area, mcus = mcus_of(head, area);
    int16_t quant[3][64];
    int taps = 0, next = area.top;
    bool fine = false;
    Rows rows = {{NULL, NULL}, {NULL, NULL, NULL}};
    Scan *s = malloc(sizeof *s);
    uint8_t *copy = malloc(size - head->scan + LONGEST_MCU);
    for (int i = 0; i < job->count; i++) taps = at_least(taps, job->crops[i].across.taps);
    if (s == NULL || copy == NULL || !allocate(head, mcus) || !make_rows(&rows, area.right - area.left, taps)) goto out;
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
        if (!skip_mcus(s, head->mcus_across - mcus.right) || !use_mcus(job, quant, y)) goto out;
        /* The last row of pixels of an MCU in 4:2:0 waits for the chroma below it. */
        int ready = y + 1 == mcus.bottom ? area.bottom : at_most((y + 1) * 8 * head->v - (head->v - 1), area.bottom);
        for (; next < ready; next++) use_row(job, &rows, next);
    }
    fine = ends_with(s, 0xD9);
out:
    free(copy), free(s), free(rows.rows[0]), release(head);
    return fine;
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
    return box[0] >= 0 && box[1] >= 0 && box[2] >= 1 && box[3] >= 1 && box[0] <= width - box[2] &&
           box[1] <= height - box[3];
}

/* The pixels of a box (left, top, width, height) within the picture, RGB, rows without gaps. 0: not mine. */
EXPORT int softedge_jpeg_decode(const uint8_t *data, size_t size, const int32_t box[4], uint8_t *rgb, int plain) {
    Job job;
    if (!read_header(&job.head, data, size) || !within(box, job.head.width, job.head.height)) return 0;
    job.kernels = choose_kernels(plain), job.area = area_of(box), job.rgb = rgb, job.count = 0;
    return decode(&job, data, size);
}

/* ``count`` <= 4 crops of one picture, each a box to size x size RGB pixels, mirrored where ``flips``. 0: not mine. */
EXPORT int softedge_jpeg_crops(const uint8_t *data, size_t size, int count, const int32_t *boxes, const uint8_t *flips,
                               int side, uint8_t *const *to, int plain) {
    Job job;
    if (count < 1 || count > MOST_CROPS || side < 1 || side > MOST_SIDE || !read_header(&job.head, data, size))
        return 0;
    for (int i = 0; i < count; i++)
        if (!within(boxes + 4 * i, job.head.width, job.head.height)) return 0;
    bool fine = true;
    job.kernels = choose_kernels(plain), job.area = area_of(boxes), job.rgb = NULL;
    for (job.count = 0; job.count < count && fine; job.count++) {
        Area one = area_of(boxes + 4 * job.count), *all = &job.area;
        *all = (Area){at_most(all->left, one.left), at_most(all->top, one.top), at_least(all->right, one.right),
                      at_least(all->bottom, one.bottom)};
        fine = make_crop(&job.crops[job.count], one, side, flips[job.count] != 0);
    }
    fine = fine && decode(&job, data, size);
    for (int i = 0; i < job.count; i++) {
        if (fine) finish_crop(&job.crops[i], to[i], job.kernels);
        release_crop(&job.crops[i]);
    }
    return fine;
}

/* A box of RGB pixels in memory, ``stride`` bytes a row, to side x side pixels, mirrored if ``flip``. 0: no memory. */
EXPORT int softedge_resize(const uint8_t *rgb, size_t stride, int width, int height, int flip, int side, uint8_t *to,
                           int plain) {
    const Kernels *kernels = choose_kernels(plain);
    Crop crop;
    Rows rows = {{NULL, NULL}, {NULL, NULL, NULL}};
    if (width < 1 || height < 1 || side < 1 || side > MOST_SIDE) return 0;
    bool fine =
        make_crop(&crop, (Area){0, 0, width, height}, side, flip != 0) && make_rows(&rows, width, crop.across.taps);
    for (int y = 0; fine && y < height; y++, rgb += stride) {
        memcpy(rows.rows[y % 2], rgb, 3 * (size_t)width); /* a row that may be read beyond its end */
        add_row(&crop, y, 0, rows.rows[(y + 1) % 2], rows.rows[y % 2], kernels);
    }
    if (fine) finish_crop(&crop, to, kernels);
    release_crop(&crop), free(rows.rows[0]);
    return fine;
}
