/* Runs models on a phone through libonnxruntime.so or a format's own library: what bench/worker.py is on a board.
 *
 *     runner          in a folder with job.txt, images.bin, model-0.onnx ... and their libraries (see model.c)
 *
 * Writes results.json, outputs-K.bin (float32) and profile-K_*.json; prints {"progress": 0.42} lines.  job.txt has one
 * "key value" per line, all of them numbers.  The rules of the measurement are those of Plan in device.py.
 * Every model has a process of its own, so that memory and crashes are its own; they take turns, the others sleep.
 * When stdin closes (the cable is pulled, the computer is gone) everything ends and the folder is removed.
 */
#define _GNU_SOURCE
#include "runner.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define MOST_MODELS 32
#define STALLED_MS 120000 /* a model that does not answer for so long has hung */

Job job;

typedef struct {
  pid_t pid;
  int to, from;
  char failed[512];
  Loaded loaded;
  Finished finished;
  double *samples, spent;
  long *rounds, count, room;
} Model;

static Model models[MOST_MODELS];
static double deadline;

static void kill_all(void) {
  for (long i = 0; i < job.models; i++)
    if (models[i].pid > 0) {
      kill(models[i].pid, SIGKILL);
      waitpid(models[i].pid, NULL, 0);
    }
}

/* Nobody is listening any more: leave no process and, if asked, no file. */
static void orphaned(void) {
  char here[4096];
  kill_all();
  if (job.remove && getcwd(here, sizeof here)) {
    DIR *folder = opendir(".");
    struct dirent *entry;
    while (folder && (entry = readdir(folder))) unlink(entry->d_name);
    rmdir(here);
  }
  _exit(3);
}

static void say(double progress) {
  printf("{\"progress\": %.3f}\n", progress);
  if (fflush(stdout)) orphaned();
}

static void give_up(Model *model, const char *format, ...) {
  va_list values;
  va_start(values, format);
  vsnprintf(model->failed, sizeof model->failed, format, values);
  va_end(values);
  if (!model->failed[0]) strcpy(model->failed, "failed without a word");
  kill(model->pid, SIGKILL);
  waitpid(model->pid, NULL, 0);
  model->pid = 0;
}

/* Fills `bytes`; 0 when the model's process died, hung or ran out of time (then it is given up). */
static int receive(Model *model, void *bytes, size_t count) {
  for (size_t done = 0; done < count;) {
    struct pollfd watched[2] = {{model->from, POLLIN, 0}, {0, POLLIN, 0}};
    double left = deadline - now();
    int patience = left < STALLED_MS ? (left > 0 ? (int)left : 0) : STALLED_MS;
    int ready = poll(watched, 2, patience);
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) {
      give_up(model, "hung: no answer within %d s", patience / 1000);
      return 0;
    }
    char nothing[64];
    if (watched[1].revents && read(0, nothing, sizeof nothing) <= 0) orphaned();
    if (!watched[0].revents) continue;
    ssize_t got = read(model->from, (char *)bytes + done, count - done);
    if (got <= 0) {
      int status = 0;
      waitpid(model->pid, &status, 0);
      model->pid = 0;
      int number = WTERMSIG(status);
      if (WIFSIGNALED(status))
        snprintf(model->failed, sizeof model->failed, "the process was killed by signal %d%s", number,
                 number == SIGKILL ? " (out of memory?)" : number == SIGILL ? " (an instruction this chip lacks)" : "");
      else
        snprintf(model->failed, sizeof model->failed, "the process ended with exit code %d", WEXITSTATUS(status));
      return 0;
    }
    done += got;
  }
  return 1;
}

/* The answer's payload into `bytes` (at most `most`); its size, or -1 when the model is given up. */
static long hear(Model *model, void *bytes, size_t most) {
  Header header;
  double part;
  for (;;) {
    if (!receive(model, &header, sizeof header)) return -1;
    if (header.kind != STILL_AT_IT || header.bytes != sizeof part) break;
    if (!receive(model, &part, sizeof part)) return -1;
    say(0.9 + 0.1 * (model - models + part) / job.models);
  }
  if (header.kind != DONE) {
    char text[512] = {0};
    if (header.bytes < sizeof text && receive(model, text, header.bytes)) give_up(model, "%s", text);
    return -1;
  }
  if (header.bytes > most) {
    give_up(model, "an answer of %u bytes", header.bytes);
    return -1;
  }
  return receive(model, bytes, header.bytes) ? (long)header.bytes : -1;
}

static void start(int index) {
  int down[2], up[2];
  Model *model = &models[index];
  if (pipe2(down, O_CLOEXEC) || pipe2(up, O_CLOEXEC)) exit(2);
  fflush(NULL);
  model->pid = fork();
  if (model->pid < 0) exit(2);
  if (!model->pid) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(2, 1); /* stdout carries the progress */
    close(down[1]);
    close(up[0]);
    serve(index, down[0], up[1]);
  }
  close(down[0]);
  close(up[1]);
  model->to = down[1];
  model->from = up[0];
  hear(model, &model->loaded, sizeof model->loaded);
}

/* Asks for something; that the process is gone, `hear` finds out. */
static long ask(Model *model, char command, void *bytes, size_t most) {
  while (write(model->to, &command, 1) < 0 && errno == EINTR) continue;
  return hear(model, bytes, most);
}

static double portion(const Model *model) {
  double count = (double)model->count / job.min_count;
  double time = job.min_seconds > 0 ? model->spent / 1000 / job.min_seconds : count;
  double least = count < time ? count : time;
  return least < 1 ? least : 1;
}

static void round_of(Model *model, long number) {
  static double samples[SLICE_MOST];
  long bytes = ask(model, 'r', samples, sizeof samples);
  for (long i = 0; i < bytes / (long)sizeof(double); i++) {
    if (model->count == model->room) {
      model->room = 2 * model->room + 256;
      model->samples = realloc(model->samples, sizeof(double) * model->room);
      model->rounds = realloc(model->rounds, sizeof(long) * model->room);
      if (!model->samples || !model->rounds) exit(2);
    }
    model->samples[model->count] = samples[i];
    model->rounds[model->count++] = number;
    model->spent += samples[i];
  }
}

static uint64_t draw(void) { /* splitmix64: the order of turns must only be reproducible */
  static uint64_t state;
  static int begun;
  if (!begun++) state = (uint64_t)job.seed;
  uint64_t z = (state += 0x9e3779b97f4a7c15ULL);
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
  return z ^ z >> 31;
}

static void take_turns(void) {
  for (long number = 0;; number++) {
    int waiting[MOST_MODELS], count = 0;
    double least = 1;
    for (int i = 0; i < job.models; i++)
      if (models[i].pid > 0) {
        if (portion(&models[i]) < 1) waiting[count++] = i;
        if (portion(&models[i]) < least) least = portion(&models[i]);
      }
    if (!count) return;
    say(0.9 * least);
    for (int i = count - 1; i > 0; i--) {
      int j = (int)(draw() % (i + 1)), kept = waiting[i];
      waiting[i] = waiting[j];
      waiting[j] = kept;
    }
    for (int i = 0; i < count; i++) round_of(&models[waiting[i]], number);
  }
}

static void write_text(FILE *file, const char *text) {
  fputc('"', file);
  for (; *text; text++) {
    if (*text == '"' || *text == '\\') fputc('\\', file);
    fputc((unsigned char)*text < 32 ? ' ' : *text, file);
  }
  fputc('"', file);
}

static int write_results(void) {
  FILE *file = fopen("results.json.partial", "w");
  if (!file) return -1;
  fprintf(file, "[");
  for (int i = 0; i < job.models; i++) {
    const Model *model = &models[i];
    fprintf(file, "%s{", i ? ",\n" : "");
    if (model->failed[0]) {
      fprintf(file, "\"failed\":");
      write_text(file, model->failed);
      fprintf(file, "}");
      continue;
    }
    fprintf(file, "\"version\":\"%s\",\"sha256\":\"%s\",\"load_ms\":%.5f,\"first_ms\":%.5f,", model->loaded.version,
            model->loaded.sha256, model->loaded.load_ms, model->loaded.first_ms);
    fprintf(file, "\"columns\":%.0f,\"peak_memory_bytes\":%.0f,\"samples_ms\":[", model->finished.columns,
            model->finished.peak_bytes);
    for (long k = 0; k < model->count; k++) fprintf(file, "%s%.5f", k ? "," : "", model->samples[k]);
    fprintf(file, "],\"rounds\":[");
    for (long k = 0; k < model->count; k++) fprintf(file, "%s%ld", k ? "," : "", model->rounds[k]);
    fprintf(file, "],\"cores\":[");
    for (int k = 0; k < MOST_CORES; k++) fprintf(file, "%s%u", k ? "," : "", model->finished.cores[k]);
    fprintf(file, "]}");
  }
  fprintf(file, "]\n");
  int failed = ferror(file);
  return fclose(file) || failed || rename("results.json.partial", "results.json");
}

static int read_job(void) {
  char key[32];
  double value;
  FILE *file = fopen("job.txt", "r");
  if (!file) return -1;
  const struct { const char *key; long *whole; double *real; } known[] = {
      {"models", &job.models, 0},       {"images", &job.images, 0},           {"height", &job.height, 0},
      {"width", &job.width, 0},         {"threads", &job.threads, 0},         {"warmup", &job.warmup, 0},
      {"min_count", &job.min_count, 0}, {"slice_count", &job.slice_count, 0}, {"seed", &job.seed, 0},
      {"timed", &job.timed, 0},         {"remove_when_orphaned", &job.remove, 0},
      {"min_seconds", 0, &job.min_seconds}, {"slice_ms", 0, &job.slice_ms},   {"limit_s", 0, &job.limit_s}};
  while (fscanf(file, "%31s %lf", key, &value) == 2)
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
      if (!strcmp(key, known[i].key)) {
        if (known[i].whole) *known[i].whole = (long)value;
        else *known[i].real = value;
      }
  fclose(file);
  return job.models > 0 && job.models <= MOST_MODELS && job.images > 0 && job.threads > 0 ? 0 : -1;
}

int main(void) {
  signal(SIGPIPE, SIG_IGN);
  if (read_job()) {
    fprintf(stderr, "job.txt cannot be read\n");
    return 2;
  }
  deadline = now() + job.limit_s * 1e3;
  for (int i = 0; i < job.models; i++) start(i);
  if (job.timed) take_turns();
  for (int i = 0; i < job.models; i++) {
    say(0.9 + 0.1 * i / job.models);
    if (models[i].pid > 0) ask(&models[i], 'f', &models[i].finished, sizeof models[i].finished);
  }
  kill_all();
  if (write_results()) {
    fprintf(stderr, "results.json: %s\n", strerror(errno));
    return 2;
  }
  say(1);
  return 0;
}
