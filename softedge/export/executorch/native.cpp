// Runs an ExecuTorch program without PyTorch: a C interface to the C++ libraries in executorch's wheel.
//
// The wheel's Python bindings want PyTorch, which is too much for a board of 2 GB. The libraries beside them do not.
// Compiled for the board where softedge runs; board_runtime.py loads the result beside those libraries.

#include <cstdio>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include <executorch/extension/data_loader/file_data_loader.h>
#include <executorch/extension/memory_allocator/malloc_memory_allocator.h>
#include <executorch/runtime/executor/program.h>
#include <executorch/runtime/platform/runtime.h>

namespace executorch::extension::threadpool {
class ThreadPool { // the wheel has the library and not its header
 public:
  bool _unsafe_reset_threadpool(uint32_t threads);
  size_t get_thread_count() const;
};
ThreadPool* get_threadpool();
} // namespace executorch::extension::threadpool

namespace et = executorch::runtime;
using executorch::extension::FileDataLoader;
using executorch::extension::MallocMemoryAllocator;
using executorch::extension::threadpool::get_threadpool;

namespace {

// Members are destroyed from the last to the first: each may use those above it.
struct Model {
  std::unique_ptr<FileDataLoader> file;
  std::unique_ptr<et::Program> program;
  std::vector<std::vector<uint8_t>> buffers;
  std::vector<et::Span<uint8_t>> spans;
  std::unique_ptr<et::HierarchicalAllocator> planned;
  MallocMemoryAllocator own, scratch;
  std::unique_ptr<et::MemoryManager> memory;
  std::unique_ptr<et::Method> method;
};

struct Reason {
  char* text;
  size_t size;
  std::nullptr_t operator()(const char* doing, et::Error error) const {
    snprintf(text, size, "could not %s: ExecuTorch's error 0x%x (%s)", doing, (unsigned)error, et::to_string(error));
    return nullptr;
  }
};

} // namespace

#pragma GCC visibility push(default)
extern "C" {

// A model ready to run, or null, and then why: zero-terminated, cut to size bytes.
void* softedge_open(const char* path, uint32_t threads, char* why, size_t size) {
  const Reason failed{why, size};
  et::runtime_init();
  if (!get_threadpool() || !get_threadpool()->_unsafe_reset_threadpool(threads))
    return failed("set the threads", et::Error::Internal);
  auto model = std::make_unique<Model>();
  auto file = FileDataLoader::from(path);
  if (!file.ok()) return failed("open the file", file.error());
  model->file = std::make_unique<FileDataLoader>(std::move(file.get()));
  auto program = et::Program::load(model->file.get());
  if (!program.ok()) return failed("read the program", program.error());
  model->program = std::make_unique<et::Program>(std::move(program.get()));
  auto about = model->program->method_meta("forward");
  if (!about.ok()) return failed("find the method forward", about.error());
  for (size_t i = 0; i < about->num_memory_planned_buffers(); i++)
    model->buffers.emplace_back(about->memory_planned_buffer_size(i).get());
  for (auto& buffer : model->buffers) model->spans.emplace_back(buffer.data(), buffer.size());
  model->planned = std::make_unique<et::HierarchicalAllocator>(
      et::Span<et::Span<uint8_t>>(model->spans.data(), model->spans.size()));
  model->memory = std::make_unique<et::MemoryManager>(&model->own, model->planned.get(), &model->scratch);
  auto method = model->program->load_method("forward", model->memory.get());
  if (!method.ok()) return failed("load the method forward", method.error());
  model->method = std::make_unique<et::Method>(std::move(method.get()));
  return model.release();
}

// Runs an image, uint8 (1, height, width, 3); how many floats were written to answer (room for most), -1: see why.
long softedge_infer(
    void* opened, uint8_t* image, int32_t height, int32_t width, float* answer, long most, char* why, size_t size) {
  const Reason failed{why, size};
  auto& model = *static_cast<Model*>(opened);
  et::etensor::TensorImpl::SizesType shape[] = {1, height, width, 3};
  et::etensor::TensorImpl::DimOrderType order[] = {0, 1, 2, 3};
  et::etensor::TensorImpl::StridesType strides[] = {height * width * 3, width * 3, 3, 1};
  et::etensor::TensorImpl tensor(et::etensor::ScalarType::Byte, 4, shape, image, order, strides);
  auto error = model.method->set_input(et::EValue(et::etensor::Tensor(&tensor)), 0);
  if (error != et::Error::Ok) return failed("take the image", error), -1;
  error = model.method->execute();
  if (error != et::Error::Ok) return failed("run", error), -1;
  const auto& value = model.method->get_output(0);
  if (!value.isTensor() || value.toTensor().scalar_type() != et::etensor::ScalarType::Float ||
      value.toTensor().numel() > most)
    return failed("read the answer", et::Error::InvalidType), -1;
  const auto& result = value.toTensor();
  memcpy(answer, result.const_data_ptr<float>(), result.numel() * sizeof(float));
  return (long)result.numel();
}

uint32_t softedge_threads() {
  return (uint32_t)get_threadpool()->get_thread_count();
}

} // extern "C"
#pragma GCC visibility pop
