// A device beside the CPU for tests where there is no GPU: PyTorch's spare device type (PrivateUse1) on the CPU's own
// memory and kernels. Like a GPU it refuses an operator that is given arrays of two devices.
#include <set>

#include <ATen/EmptyTensor.h>
#include <ATen/autocast_mode.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/extension.h>

using at::Tensor;
constexpr auto kOther = c10::DeviceType::PrivateUse1;
const c10::Device other(kOther, 0);

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return kOther; }
  c10::Device exchangeDevice(c10::Device) const override { return other; }
  c10::Device getDevice() const override { return other; }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::Stream getStream(c10::Device) const override { return c10::Stream(c10::Stream::DEFAULT, other); }
  c10::Stream exchangeStream(c10::Stream) const override { return getStream(other); }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

struct Memory final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    void* place = bytes ? malloc(bytes) : nullptr;
    return {place, place, &free, other};
  }
  void copy_data(void* to, const void* from, size_t bytes) const override { memcpy(to, from, bytes); }
};
static Memory memory;
REGISTER_ALLOCATOR(kOther, &memory);

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t bytes) const override {
    auto fresh = memory.allocate(bytes);
    if (storage.data()) memcpy(fresh.get(), storage.data(), std::min(bytes, storage.nbytes()));
    storage.unsafeGetStorageImpl()->set_data_ptr_noswap(std::move(fresh));
    storage.unsafeGetStorageImpl()->set_nbytes(bytes);
  }
};

const c10::DispatchKeySet keys(c10::DispatchKey::PrivateUse1);
using Type = std::optional<at::ScalarType>;
using Layout = std::optional<at::Layout>;
using Place = std::optional<at::Device>;

Tensor empty(at::IntArrayRef sizes, Type type, Layout, Place, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  return at::detail::empty_generic(sizes, &memory, keys, c10::dtype_or_default(type), format);
}

Tensor empty_strided(at::IntArrayRef sizes, at::IntArrayRef strides, Type type, Layout, Place, std::optional<bool>) {
  return at::detail::empty_strided_generic(sizes, strides, &memory, keys, c10::dtype_or_default(type));
}

// The same memory as a tensor of the CPU.
Tensor on_cpu(const Tensor& x) {
  return x.is_cpu() ? x : at::from_blob(x.data_ptr(), x.sizes(), x.strides(), at::TensorOptions().dtype(x.dtype()));
}

Tensor on_other(const Tensor& x) {
  if (!x.defined()) return x;
  auto result = empty_strided(x.sizes(), x.strides(), x.scalar_type(), {}, {}, {});
  on_cpu(result).copy_(x);
  return result;
}

Tensor copy_from(const Tensor& from, const Tensor& to, bool) {
  on_cpu(to).copy_(on_cpu(from));
  return to;
}

Tensor copy_from_and_resize(const Tensor& from, const Tensor& to) {
  to.resize_(from.sizes());
  return copy_from(from, to, false);
}

at::Scalar item(const Tensor& x) { return at::_local_scalar_dense(on_cpu(x)); }

const Tensor& resize(const Tensor& x, c10::SymIntArrayRef symbolic, std::optional<at::MemoryFormat>) {
  auto sizes = C10_AS_INTARRAYREF_SLOW(symbolic);
  if (sizes == x.sizes()) return x;  // its order in memory stays
  size_t bytes = (c10::multiply_integers(sizes) + x.storage_offset()) * x.itemsize();
  if (bytes > x.storage().nbytes()) Hooks().resizePrivateUse1Bytes(x.storage(), bytes);
  x.unsafeGetTensorImpl()->set_sizes_contiguous(sizes);
  return x;
}

void all_here(std::initializer_list<Tensor> tensors) {
  for (const auto& x : tensors) TORCH_CHECK(!x.defined() || !x.is_cpu(), "convolution: an array on the CPU");
}

Tensor convolution(
    const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, at::IntArrayRef stride,
    at::IntArrayRef padding, at::IntArrayRef dilation, bool transposed, at::IntArrayRef more, int64_t groups) {
  all_here({x, weight, bias.value_or(Tensor())});
  auto added = bias && bias->defined() ? std::optional(on_cpu(*bias)) : std::nullopt;
  return on_other(at::convolution(on_cpu(x), on_cpu(weight), added, stride, padding, dilation, transposed, more, groups));
}

std::tuple<Tensor, Tensor, Tensor> convolution_backward(
    const Tensor& grad, const Tensor& x, const Tensor& weight, at::IntArrayRef stride, at::IntArrayRef padding,
    at::IntArrayRef dilation, bool transposed, at::IntArrayRef more, int64_t groups, std::array<bool, 3> wanted) {
  all_here({grad, x, weight});
  const std::vector<int64_t> biases{weight.size(0)};
  auto [a, b, c] = at::convolution_backward(
      on_cpu(grad), on_cpu(x), on_cpu(weight), at::OptionalIntArrayRef(biases), stride, padding, dilation, transposed,
      more, groups, wanted);
  return {on_other(a), on_other(b), on_other(c)};
}

// Every other operator. As on a GPU, single numbers and indexes may be the CPU's.
void any(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  static const std::set<std::string> indexing{"aten::index", "aten::index_put_", "aten::_index_put_impl_"};
  bool here = false, elsewhere = false;
  const std::function<void(const c10::IValue&)> look = [&](const c10::IValue& value) {
    if (value.isTensor() && value.toTensor().defined()) {
      here |= !value.toTensor().is_cpu();
      elsewhere |= value.toTensor().is_cpu() && value.toTensor().dim();
    } else if (value.isList()) {
      for (const c10::IValue& each : value.toListRef()) look(each);
    }
  };
  for (size_t i = stack->size() - op.schema().arguments().size(); i < stack->size(); i++) look((*stack)[i]);
  const auto& name = op.schema().name();
  TORCH_CHECK(!(here && elsewhere) || indexing.count(name), name, ": arrays of two devices");
  at::native::cpu_fallback(op, stack, /*error_on_views=*/true);
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&any>()); }

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", empty);
  m.impl("empty_strided", empty_strided);
  m.impl("_copy_from", copy_from);
  m.impl("_copy_from_and_resize", copy_from_and_resize);
  m.impl("_local_scalar_dense", item);
  m.impl("resize_", resize);
  m.impl("convolution_overrideable", convolution);
  m.impl("convolution_backward_overrideable", convolution_backward);
  m.impl("as_strided", TORCH_FN(at::native::as_strided_tensorimpl));
  m.impl("view", TORCH_FN(at::native::view));
  m.impl("_reshape_alias", TORCH_FN(at::native::_reshape_alias));
  m.impl("unfold", TORCH_FN(at::native::unfold));
  m.impl("set_.source_Storage", TORCH_FN(at::native::set_));
  m.impl("set_.source_Storage_storage_offset", TORCH_FN(at::native::set_storage_cpu_));
  m.impl("set_.source_Tensor", TORCH_FN(at::native::set_tensor_));
}

// In which numbers operators compute under autocast: as on a GPU.
TORCH_LIBRARY_IMPL(_, AutocastPrivateUse1, m) { m.fallback(torch::CppFunction::makeFallthrough()); }

namespace at::autocast {
#define HALF(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, lower_precision_fp)
#define FLOAT(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, fp32)
#define FLOAT_UNLESS_TOLD(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, fp32_set_opt_dtype)
#define WIDEST(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, promote)
TORCH_LIBRARY_IMPL(aten, AutocastPrivateUse1, m) {
  AT_FORALL_LOWER_PRECISION_FP(HALF)
  AT_FORALL_FP32(FLOAT)
  AT_FORALL_FP32_SET_OPT_DTYPE(FLOAT_UNLESS_TOLD)
  AT_FORALL_PROMOTE(WIDEST)
}
}  // namespace at::autocast

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  m.def("register_hooks", [] { at::RegisterPrivateUse1HooksInterface(new Hooks()); });
}
