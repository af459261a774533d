// One ExecuTorch program behind four C functions, by the C++ interface that ExecuTorch's package
// ships. Its Python interface needs PyTorch in the process, which no phone has.

#include <executorch/runtime/core/exec_aten/exec_aten.h>
#include <executorch/runtime/executor/program.h>
#include <executorch/runtime/platform/runtime.h>
#include <executorch/extension/data_loader/buffer_data_loader.h>

#include <cstdint>
#include <cstdlib>

using executorch::aten::DimOrderType;
using executorch::aten::ScalarType;
using executorch::aten::SizesType;
using executorch::aten::StridesType;
using executorch::aten::Tensor;
using executorch::aten::TensorImpl;
using executorch::extension::BufferDataLoader;
using executorch::runtime::Error;
using executorch::runtime::EValue;
using executorch::runtime::HierarchicalAllocator;
using executorch::runtime::MemoryAllocator;
using executorch::runtime::MemoryManager;
using executorch::runtime::Method;
using executorch::runtime::MethodMeta;
using executorch::runtime::Program;
using executorch::runtime::Result;
using executorch::runtime::Span;

// The package has the library of these, and not their header.
namespace executorch::extension::threadpool {
class ThreadPool final {
 public:
  bool _unsafe_reset_threadpool(uint32_t threads);
};
ThreadPool* get_threadpool();
} // namespace executorch::extension::threadpool

namespace {

constexpr char kMethod[] = "forward";
constexpr size_t kLargestDimensions = 4;
constexpr size_t kLargestBuffers = 8;
// Of the method's own structures, and of what kernels ask for while they run.
constexpr uint32_t kMethodBytes = 16 << 20;
constexpr uint32_t kWorkspaceBytes = 16 << 20;

// Never freed: it lives as long as its process.
struct Network {
  Method* method;
  TensorImpl* image;
};

uint8_t* zeroed(size_t bytes) {
  return static_cast<uint8_t*>(calloc(1, bytes ? bytes : 1));
}

MemoryManager* plan_memory(const MethodMeta& meta) {
  static Span<uint8_t> buffers[kLargestBuffers];
  const size_t count = meta.num_memory_planned_buffers();
  if (count > kLargestBuffers) return nullptr;
  for (size_t i = 0; i < count; ++i) {
    const size_t bytes = static_cast<size_t>(meta.memory_planned_buffer_size(i).get());
    buffers[i] = {zeroed(bytes), bytes};
  }
  auto* own = new MemoryAllocator(kMethodBytes, zeroed(kMethodBytes));
  auto* planned = new HierarchicalAllocator({buffers, count});
  auto* workspace = new MemoryAllocator(kWorkspaceBytes, zeroed(kWorkspaceBytes));
  return new MemoryManager(own, planned, workspace);
}

// Describes the image as the program wants it, at a place that is the caller's.
TensorImpl* describe_image(const MethodMeta& meta, void* values, size_t count) {
  static SizesType sizes[kLargestDimensions];
  static DimOrderType order[kLargestDimensions];
  static StridesType strides[kLargestDimensions];
  const auto wanted = meta.input_tensor_meta(0);
  if (!wanted.ok() || wanted->scalar_type() != ScalarType::Float) return nullptr;
  const size_t dimensions = wanted->sizes().size();
  if (dimensions > kLargestDimensions) return nullptr;
  StridesType stride = 1;
  for (size_t i = dimensions; i-- > 0;) {
    sizes[i] = wanted->sizes()[i];
    order[i] = wanted->dim_order()[i];
    strides[order[i]] = stride;
    stride *= wanted->sizes()[order[i]];
  }
  if (static_cast<size_t>(stride) != count) return nullptr;
  return new TensorImpl(ScalarType::Float, dimensions, sizes, values, order, strides);
}

} // namespace

// Gives null and an ExecuTorch error, or -1 where the program is not of one image of `count` numbers.
extern "C" Network* network_open(
    const void* program_bytes, size_t size, void* image, size_t count, uint32_t threads,
    int32_t* error) {
  executorch::runtime::runtime_init();
  *error = -1;
  auto* pool = executorch::extension::threadpool::get_threadpool();
  if (pool == nullptr || !pool->_unsafe_reset_threadpool(threads)) return nullptr;
  auto* loader = new BufferDataLoader(program_bytes, size);
  Result<Program> loaded = Program::load(loader);
  *error = static_cast<int32_t>(loaded.error());
  if (!loaded.ok()) return nullptr;
  auto* program = new Program(std::move(loaded.get()));
  Result<MethodMeta> meta = program->method_meta(kMethod);
  *error = static_cast<int32_t>(meta.error());
  if (!meta.ok()) return nullptr;
  *error = -1;
  TensorImpl* described = describe_image(meta.get(), image, count);
  MemoryManager* memory = plan_memory(meta.get());
  if (described == nullptr || memory == nullptr) return nullptr;
  Result<Method> method = program->load_method(kMethod, memory);
  *error = static_cast<int32_t>(method.error());
  if (!method.ok()) return nullptr;
  return new Network{new Method(std::move(method.get())), described};
}

// Copies the image into the program's memory, where the program plans for it.
extern "C" int32_t network_set(Network* network) {
  return static_cast<int32_t>(network->method->set_input(EValue(Tensor(network->image)), 0));
}

extern "C" int32_t network_run(Network* network) {
  return static_cast<int32_t>(network->method->execute());
}

// Gives where the answer lies, and how many numbers it has.
extern "C" const float* network_answer(Network* network, size_t* count) {
  const Tensor answer = network->method->get_output(0).toTensor();
  *count = static_cast<size_t>(answer.numel());
  return answer.const_data_ptr<float>();
}
