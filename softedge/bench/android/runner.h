/* What the two halves of the runner share: the job, and what a model's process answers through its pipe. */
#ifndef SOFTEDGE_ANDROID_RUNNER_H
#define SOFTEDGE_ANDROID_RUNNER_H

#include <stddef.h>
#include <stdint.h>

#define MOST_CORES 64
#define SLICE_MOST (1 << 16) /* samples in a slice */

typedef struct {
  long models, images, height, width, threads, warmup, min_count, slice_count, seed, timed, remove;
  double min_seconds, slice_ms, limit_s;
} Job;

/* Every answer is a Header and `bytes` more: text when FAILED, the part that is done (a double) when STILL_AT_IT, which
 * comes before the answer any number of times, else what the command asked for. */
enum { DONE, FAILED, STILL_AT_IT };
typedef struct { uint32_t kind, bytes; } Header;
typedef struct { double load_ms, first_ms; char sha256[65], version[32]; } Loaded; /* after loading, unasked */
typedef struct { double peak_bytes, columns; uint32_t cores[MOST_CORES]; } Finished; /* command 'f' */
/* command 'r', a round: doubles, milliseconds */

extern Job job;

double now(void); /* milliseconds */
void serve(int index, int commands, int answers) __attribute__((noreturn));
int sha256_of_file(const char *path, char hex[65]);

#endif
