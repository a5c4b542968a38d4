// Runs a LiteRT file where there is no Python: the interface of a native.cpp on the C interface of libLiteRt.so.
//
// The wheel of ai-edge-litert holds that library and not its headers, so the calls that are made are declared here, as
// LiteRT declares them (litert/c/*.h of 2.3); all handles are pointers, LiteRtStatus is an int, 0 is success.
// Compiled for a phone where softedge runs; bench/android/model.c loads the result beside libLiteRt.so.

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

using Handle = void*;

// LiteRtRankedTensorType: an element type, a layout whose first bits are the rank, dimensions, strides; 72 bytes.
struct TensorType {
  int32_t element, rank, dimensions[8], strides[8];
  int32_t reserved[16];
};

extern "C" {
int LiteRtCreateEnvironment(int options, const void* values, Handle* environment);
void LiteRtDestroyEnvironment(Handle environment);
int LiteRtCreateModelFromBuffer(Handle environment, const void* bytes, size_t size, Handle* model);
void LiteRtDestroyModel(Handle model);
int LiteRtGetModelSignature(Handle model, size_t index, Handle* signature);
int LiteRtGetNumSignatureInputs(Handle signature, size_t* count);
int LiteRtGetNumSignatureOutputs(Handle signature, size_t* count);
int LiteRtGetSignatureInputTensorByIndex(Handle signature, size_t index, Handle* tensor);
int LiteRtGetSignatureOutputTensorByIndex(Handle signature, size_t index, Handle* tensor);
int LiteRtGetRankedTensorType(Handle tensor, TensorType* type);
int LiteRtCreateOptions(Handle* options);
void LiteRtDestroyOptions(Handle options);
int LiteRtSetOptionsHardwareAccelerators(Handle options, int accelerators);
int LiteRtCreateOpaqueOptions(const char* kind, void* payload, void (*destroy)(void*), Handle* options);
int LiteRtAddOpaqueOptions(Handle options, Handle opaque);
int LiteRtCreateCompiledModel(Handle environment, Handle model, Handle options, Handle* compiled);
void LiteRtDestroyCompiledModel(Handle compiled);
int LiteRtGetCompiledModelInputBufferRequirements(Handle compiled, size_t signature, size_t index, Handle* wanted);
int LiteRtGetCompiledModelOutputBufferRequirements(Handle compiled, size_t signature, size_t index, Handle* wanted);
int LiteRtCreateManagedTensorBufferFromRequirements(
    Handle environment, const TensorType* type, Handle wanted, Handle* buffer);
void LiteRtDestroyTensorBuffer(Handle buffer);
int LiteRtGetTensorBufferPackedSize(Handle buffer, size_t* bytes);
int LiteRtLockTensorBuffer(Handle buffer, void** memory, int mode);
int LiteRtUnlockTensorBuffer(Handle buffer);
int LiteRtRunCompiledModel(Handle compiled, size_t signature, size_t n_in, Handle* in, size_t n_out, Handle* out);
}

namespace {

enum { FLOAT32 = 1, UINT8 = 3 };          // LiteRtElementType
enum { FOR_READING = 0, FOR_WRITING = 1 }; // LiteRtTensorBufferLockMode
enum { CPU = 1 };                          // LiteRtHwAccelerators

template <void (*destroy)(Handle)>
struct Owned {
  Handle handle = nullptr;
  ~Owned() { if (handle) destroy(handle); }
};

// A file in memory, which LiteRT's model points into; bytes is null when it cannot be read or is empty.
struct Mapped {
  void* bytes = nullptr;
  size_t size = 0;
  void open(const char* path) {
    const int file = ::open(path, O_RDONLY | O_CLOEXEC);
    struct stat about;
    if (file >= 0 && !fstat(file, &about) && about.st_size > 0) {
      void* found = mmap(nullptr, about.st_size, PROT_READ, MAP_PRIVATE, file, 0);
      if (found != MAP_FAILED) bytes = found, size = about.st_size;
    }
    if (file >= 0) close(file);
  }
  ~Mapped() { if (bytes) munmap(bytes, size); }
};

// Members are destroyed from the last to the first: each may use those above it.
struct Model {
  Mapped content;
  Owned<LiteRtDestroyEnvironment> environment;
  Owned<LiteRtDestroyModel> file;
  Owned<LiteRtDestroyOptions> options;
  Owned<LiteRtDestroyCompiledModel> compiled;
  Owned<LiteRtDestroyTensorBuffer> image, answer;
  TensorType takes = {}, gives = {};
  size_t image_bytes = 0, answer_bytes = 0;
};

struct Step {
  char* why;
  size_t size;
  // Whether a call succeeded; if not, why.
  bool operator()(const char* doing, int status) const {
    if (status) snprintf(why, size, "could not %s: LiteRT's error %d", doing, status);
    return status == 0;
  }
};

void destroy_text(void* text) { delete[] static_cast<char*>(text); }

int set_threads(Handle options, uint32_t threads) {
  const std::string line = "num_threads = " + std::to_string(threads) + "\n";
  char* text = new char[line.size() + 1];
  memcpy(text, line.c_str(), line.size() + 1);
  Handle opaque = nullptr;
  const int status = LiteRtCreateOpaqueOptions("xnnpack", text, destroy_text, &opaque);
  return status ? status : LiteRtAddOpaqueOptions(options, opaque);
}

// The types of the one image in and the one answer out; another file is refused.
bool describe(Model& model, const Step& done) {
  Handle signature, in, out;
  size_t inputs = 0, outputs = 0;
  if (!done("find the signature", LiteRtGetModelSignature(model.file.handle, 0, &signature)) ||
      !done("count the inputs", LiteRtGetNumSignatureInputs(signature, &inputs)) ||
      !done("count the outputs", LiteRtGetNumSignatureOutputs(signature, &outputs)))
    return false;
  if (inputs != 1 || outputs != 1)
    return snprintf(done.why, done.size, "expected one image in and one answer out, the file has %zu and %zu", inputs,
                    outputs), false;
  if (!done("find the input", LiteRtGetSignatureInputTensorByIndex(signature, 0, &in)) ||
      !done("find the output", LiteRtGetSignatureOutputTensorByIndex(signature, 0, &out)) ||
      !done("read the type of the input", LiteRtGetRankedTensorType(in, &model.takes)) ||
      !done("read the type of the output", LiteRtGetRankedTensorType(out, &model.gives)))
    return false;
  if (model.takes.element == UINT8 && (model.gives.element == FLOAT32 || model.gives.element == UINT8)) return true;
  return snprintf(done.why, done.size, "the file does not take uint8 and give float32 or uint8"), false;
}

bool prepare(Model& model, const Step& done) {
  Handle wanted;
  Handle environment = model.environment.handle, compiled = model.compiled.handle;
  return done("size the input", LiteRtGetCompiledModelInputBufferRequirements(compiled, 0, 0, &wanted)) &&
      done("make room for the image", LiteRtCreateManagedTensorBufferFromRequirements(
          environment, &model.takes, wanted, &model.image.handle)) &&
      done("size the output", LiteRtGetCompiledModelOutputBufferRequirements(compiled, 0, 0, &wanted)) &&
      done("make room for the answer", LiteRtCreateManagedTensorBufferFromRequirements(
          environment, &model.gives, wanted, &model.answer.handle)) &&
      done("measure the image", LiteRtGetTensorBufferPackedSize(model.image.handle, &model.image_bytes)) &&
      done("measure the answer", LiteRtGetTensorBufferPackedSize(model.answer.handle, &model.answer_bytes));
}

} // namespace

#pragma GCC visibility push(default)
extern "C" {

// A model ready to run, or null, and then why: zero-terminated, cut to size bytes.
void* softedge_open(const char* path, uint32_t threads, char* why, size_t size) {
  const Step done{why, size};
  auto model = std::make_unique<Model>();
  auto& m = *model;
  m.content.open(path);
  if (!m.content.bytes) return snprintf(why, size, "could not read the file: it is empty or not there"), nullptr;
  const bool ready = done("start", LiteRtCreateEnvironment(0, nullptr, &m.environment.handle)) &&
      // From memory LiteRT checks the whole file first; by its path it does not, and crashes on one that is cut short.
      done("read the file", LiteRtCreateModelFromBuffer(
          m.environment.handle, m.content.bytes, m.content.size, &m.file.handle)) &&
      describe(m, done) && done("make options", LiteRtCreateOptions(&m.options.handle)) &&
      done("choose the processor", LiteRtSetOptionsHardwareAccelerators(m.options.handle, CPU)) &&
      done("set the threads", set_threads(m.options.handle, threads)) &&
      done("prepare the model", LiteRtCreateCompiledModel(
          m.environment.handle, m.file.handle, m.options.handle, &m.compiled.handle)) &&
      prepare(m, done);
  return ready ? model.release() : nullptr;
}

// Runs an image, uint8 (1, height, width, 3); how many floats were written to answer (room for most), -1: see why.
// Of a file that answers in uint8 they are the integers.
long softedge_infer(
    void* opened, uint8_t* image, int32_t height, int32_t width, float* answer, long most, char* why, size_t size) {
  const Step done{why, size};
  auto& model = *static_cast<Model*>(opened);
  const size_t bytes = (size_t)height * width * 3;
  const bool integers = model.gives.element == UINT8;
  const long count = (long)(model.answer_bytes / (integers ? 1 : sizeof(float)));
  if (bytes != model.image_bytes || count > most)
    return snprintf(why, size, "the file takes %zu bytes, not the %zu of an image", model.image_bytes, bytes), -1;
  void* memory;
  if (!done("take the image", LiteRtLockTensorBuffer(model.image.handle, &memory, FOR_WRITING))) return -1;
  memcpy(memory, image, bytes);
  if (!done("take the image", LiteRtUnlockTensorBuffer(model.image.handle)) ||
      !done("run", LiteRtRunCompiledModel(model.compiled.handle, 0, 1, &model.image.handle, 1, &model.answer.handle)) ||
      !done("read the answer", LiteRtLockTensorBuffer(model.answer.handle, &memory, FOR_READING)))
    return -1;
  if (integers) {
    const uint8_t* values = static_cast<const uint8_t*>(memory);
    for (long index = 0; index < count; ++index) answer[index] = values[index];
  } else {
    memcpy(answer, memory, count * sizeof(float));
  }
  return done("read the answer", LiteRtUnlockTensorBuffer(model.answer.handle)) ? count : -1;
}

} // extern "C"
#pragma GCC visibility pop
