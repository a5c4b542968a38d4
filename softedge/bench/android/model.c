/* One model in its own process: loads it with its runtime, runs it when told, answers through a pipe.
 *
 * model-K.onnx is onnxruntime's.  model-K.FORMAT of another format is run by native-FORMAT.so, made of that format's
 * native.cpp, through the interface at the end of that file. */
#define _GNU_SOURCE
#include "runner.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Slots of OrtApi version 1, which never move (onnxruntime_c_api.h). */
enum {
  MESSAGE = 2, CREATE_ENV = 3, CREATE_SESSION = 7, RUN = 9, CREATE_OPTIONS = 10, ENABLE_PROFILING = 14, LOG_LEVEL = 22,
  INTRA_THREADS = 24, INTER_THREADS = 25, INPUT_NAME = 36, OUTPUT_NAME = 37, CREATE_TENSOR = 49, TENSOR_DATA = 51,
  ELEMENT_TYPE = 60, ELEMENT_COUNT = 64, TENSOR_INFO = 65, MEMORY_INFO = 69, ALLOCATOR = 78, RELEASE_SESSION = 95,
  RELEASE_VALUE = 96, RELEASE_INFO = 99
};
#define TELL_MS 1000
#define MOST_COLUMNS (1 << 20)
enum { FLOAT = 1, UINT8 = 2, ERRORS_ONLY = 3 };
typedef void *Handle;
typedef struct { const Handle *(*api)(uint32_t); const char *(*version)(void); } ApiBase;
#define ORT(slot, ...) ((Handle(*)(__VA_ARGS__))api[slot])
#define ORT_VOID(slot) ((void (*)(Handle))api[slot])

static const Handle *api;
static int channel;
static Handle session, memory;
static char *input_name, *output_name;
static unsigned char *pixels;
static float *outputs;
static size_t columns;
static int images_file;
static uint32_t cores[MOST_CORES];
static void *native; /* a model that native-FORMAT.so has opened */
static long (*native_infer)(void *, uint8_t *, int32_t, int32_t, float *, long, char *, size_t);

/* Steps of nanoseconds on Linux and Android, against runs of at least microseconds: each run is a sample of its own, where
   a browser's clock and Python's need several. */
double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static void write_all(int to, const void *bytes, size_t count) {
  for (size_t done = 0; done < count;) {
    ssize_t wrote = write(to, (const char *)bytes + done, count - done);
    if (wrote < 0 && errno != EINTR) _exit(4);
    if (wrote > 0) done += wrote;
  }
}

static void answer(uint32_t kind, const void *bytes, size_t count) {
  Header header = {kind, (uint32_t)count};
  write_all(channel, &header, sizeof header);
  write_all(channel, bytes, count);
}

static void fail(const char *format, ...) {
  char text[512];
  va_list values;
  va_start(values, format);
  vsnprintf(text, sizeof text, format, values);
  va_end(values);
  answer(FAILED, text, strlen(text));
  _exit(1);
}

static void check(Handle status) {
  if (status) fail("onnxruntime: %s", ((const char *(*)(Handle))api[MESSAGE])(status));
}

static size_t image_bytes(void) { return (size_t)job.height * job.width * 3; }

static void read_image(long index) {
  size_t size = image_bytes();
  if (pread(images_file, pixels, size, (off_t)(size * index)) != (ssize_t)size) fail("images.bin is too short");
}

/* Keeps an answer as row `row` unless that is negative; the first one says how many columns there are. */
static void keep(long row, const float *data, size_t count) {
  if (!count || (columns && count != columns)) fail("the output is not (1, classes)");
  if (!columns) {
    columns = count;
    outputs = malloc(sizeof(float) * columns * job.images);
    if (!outputs) fail("no memory for %ld outputs", job.images);
  }
  if (row >= 0) memcpy(outputs + row * columns, data, sizeof(float) * columns);
}

/* The same of integers; whoever asked for them knows what they stand for. */
static void keep_bytes(long row, const uint8_t *data, size_t count) {
  static float values[MOST_COLUMNS];
  if (count > MOST_COLUMNS) fail("the output has %zu values", count);
  for (size_t index = 0; index < count; ++index) values[index] = data[index];
  keep(row, values, count);
}

static double infer_natively(long row) {
  static float data[MOST_COLUMNS];
  char why[256] = "";
  double begun = now();
  long count = native_infer(native, pixels, (int32_t)job.height, (int32_t)job.width, data, MOST_COLUMNS, why, sizeof why);
  double took = now() - begun;
  if (count < 0) fail("%s", why);
  keep(row, data, (size_t)count);
  return took;
}

/* One inference on `pixels`; returns milliseconds; keeps the output as row `row` unless that is negative. */
static double infer(long row) {
  const int64_t shape[4] = {1, job.height, job.width, 3};
  const char *inputs[1] = {input_name}, *names[1] = {output_name};
  Handle in, out = NULL, info;
  if (native) return infer_natively(row);
  double begun = now();
  check(ORT(CREATE_TENSOR, Handle, void *, size_t, const int64_t *, size_t, int, Handle *)(
      memory, pixels, image_bytes(), shape, 4, UINT8, &in));
  check(ORT(RUN, Handle, Handle, const char *const *, const Handle *, size_t, const char *const *, size_t, Handle *)(
      session, NULL, inputs, &in, 1, names, 1, &out));
  double took = now() - begun;
  if (row >= 0 || !columns) {
    void *data;
    size_t count;
    int type;
    check(ORT(TENSOR_INFO, Handle, Handle *)(out, &info));
    check(ORT(ELEMENT_TYPE, Handle, int *)(info, &type));
    check(ORT(ELEMENT_COUNT, Handle, size_t *)(info, &count));
    ORT_VOID(RELEASE_INFO)(info);
    if (type != FLOAT && type != UINT8) fail("the output is neither float32 nor uint8");
    check(ORT(TENSOR_DATA, Handle, void **)(out, &data));
    if (type == FLOAT) keep(row, data, count);
    else keep_bytes(row, data, count);
  }
  ORT_VOID(RELEASE_VALUE)(out);
  ORT_VOID(RELEASE_VALUE)(in);
  return took;
}

static Handle open_session(const char *path, const char *profile, Handle env) {
  Handle options, opened;
  check(ORT(CREATE_OPTIONS, Handle *)(&options));
  check(ORT(INTRA_THREADS, Handle, int)(options, (int)job.threads));
  check(ORT(INTER_THREADS, Handle, int)(options, 1));
  check(ORT(LOG_LEVEL, Handle, int)(options, ERRORS_ONLY));
  if (profile) check(ORT(ENABLE_PROFILING, Handle, const char *)(options, profile));
  check(ORT(CREATE_SESSION, Handle, const char *, Handle, Handle *)(env, path, options, &opened));
  return opened;
}

static double peak_memory(void) {
  char line[256];
  double kib = 0;
  FILE *file = fopen("/proc/self/status", "r");
  while (file && fgets(line, sizeof line, file))
    if (!strncmp(line, "VmHWM:", 6)) kib = atof(line + 6);
  if (file) fclose(file);
  return kib * 1024;
}

/* The name of model K: its format is what follows the dot. */
static const char *find_model(int index, char *path, size_t size) {
  char start[32];
  snprintf(start, sizeof start, "model-%d.", index);
  DIR *folder = opendir(".");
  struct dirent *entry;
  while (folder && (entry = readdir(folder)))
    if (!strncmp(entry->d_name, start, strlen(start))) {
      snprintf(path, size, "%s", entry->d_name);
      closedir(folder);
      return path + strlen(start);
    }
  fail("there is no model %d", index);
  return NULL;
}

static void load_onnx(const char *path, Loaded *loaded, Handle *env) {
  Handle allocator, library = dlopen("./libonnxruntime.so", RTLD_NOW | RTLD_GLOBAL);
  if (!library) fail("%s", dlerror());
  const ApiBase *(*base)(void) = (const ApiBase *(*)(void))dlsym(library, "OrtGetApiBase");
  if (!base || !(api = base()->api(1))) fail("libonnxruntime.so has no version 1 interface");
  snprintf(loaded->version, sizeof loaded->version, "%s", base()->version());
  check(ORT(CREATE_ENV, int, const char *, Handle *)(ERRORS_ONLY, "softedge", env));
  double begun = now();
  session = open_session(path, NULL, *env);
  loaded->load_ms = now() - begun;
  check(ORT(ALLOCATOR, Handle *)(&allocator));
  check(ORT(INPUT_NAME, Handle, size_t, Handle, char **)(session, 0, allocator, &input_name));
  check(ORT(OUTPUT_NAME, Handle, size_t, Handle, char **)(session, 0, allocator, &output_name));
  check(ORT(MEMORY_INFO, int, int, Handle *)(1, 0, &memory));
}

static void load_natively(const char *path, const char *format, Loaded *loaded) {
  char name[64], why[256] = "";
  snprintf(name, sizeof name, "./native-%.32s.so", format);
  void *library = dlopen(name, RTLD_NOW | RTLD_GLOBAL);
  if (!library) fail("%s", dlerror());
  void *(*open_model)(const char *, uint32_t, char *, size_t);
  *(void **)&open_model = dlsym(library, "softedge_open");
  *(void **)&native_infer = dlsym(library, "softedge_infer");
  if (!open_model || !native_infer) fail("%s has not the interface of a native.cpp", name);
  double begun = now();
  native = open_model(path, (uint32_t)job.threads, why, sizeof why);
  loaded->load_ms = now() - begun;
  if (!native) fail("%s", why);
}

void serve(int index, int commands, int answers) {
  channel = answers;
  char path[64], model[64], profile[64], command;
  Loaded loaded = {0};
  Handle env = NULL;
  const char *format = find_model(index, model, sizeof model);
  snprintf(profile, sizeof profile, "profile-%d", index);
  if (sha256_of_file(model, loaded.sha256)) fail("%s cannot be read", model);
  if ((images_file = open("images.bin", O_RDONLY)) < 0) fail("images.bin: %s", strerror(errno));
  if (!(pixels = malloc(image_bytes()))) fail("no memory for an image");
  if (strcmp(format, "onnx")) load_natively(model, format, &loaded);
  else load_onnx(model, &loaded, &env);
  read_image(0);
  loaded.first_ms = infer(-1);
  for (long i = 0; i < job.warmup; i++) {
    read_image(i % job.images);
    infer(-1);
  }
  answer(DONE, &loaded, sizeof loaded);

  long next = 0, room = 0;
  double *samples = NULL;
  while (read(commands, &command, 1) == 1) {
    if (command == 'r') { /* a round: one inference untimed (others used the caches since), then timed ones */
      long taken = 0;
      double spent = 0;
      read_image(next % job.images);
      infer(-1);
      while ((spent < job.slice_ms || taken < job.slice_count) && taken < SLICE_MOST) {
        if (taken == room && !(samples = realloc(samples, sizeof(double) * (room = 2 * room + 64)))) fail("no memory");
        read_image(next % job.images);
        samples[taken] = infer(next < job.images ? next : -1);
        spent += samples[taken++];
        next++;
        int core = sched_getcpu();
        if (core >= 0 && core < MOST_CORES) cores[core]++;
      }
      answer(DONE, samples, sizeof(double) * taken);
    } else { /* finish: the images not timed, all outputs to a file, then what really ran */
      double told = now();
      for (; next < job.images; next++) {
        read_image(next);
        infer(next);
        if (now() - told < TELL_MS) continue;
        double part = (double)next / job.images;
        answer(STILL_AT_IT, &part, sizeof part);
        told = now();
      }
      Finished finished = {peak_memory(), (double)columns, {0}};
      memcpy(finished.cores, cores, sizeof cores);
      snprintf(path, sizeof path, "outputs-%d.bin", index);
      FILE *file = fopen(path, "wb");
      size_t all = columns * job.images;
      int short_of = !file || fwrite(outputs, sizeof(float), all, file) != all;
      if ((file && fclose(file)) || short_of) fail("%s: %s", path, strerror(errno));
      if (!native) {
        ORT_VOID(RELEASE_SESSION)(session);
        session = open_session(model, profile, env);
        infer(-1);
        ORT_VOID(RELEASE_SESSION)(session); /* writes the profile */
      }
      answer(DONE, &finished, sizeof finished);
    }
  }
  _exit(0);
}
