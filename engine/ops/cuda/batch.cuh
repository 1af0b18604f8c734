// Several tensors in one launch, because most of them alone do not fill the GPU: which one a block works on.
#pragma once

namespace assay::cuda {

// Of `count` entries, whose blocks follow one another, the one that has this block; first_block(i) is the first of
// entry i.
template <class F>
__device__ __forceinline__ int entry_of(int block, int count, const F& first_block) {
  int low = 0, high = count - 1;
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (first_block(middle) <= block)
      low = middle;
    else
      high = middle - 1;
  }
  return low;
}

}  // namespace assay::cuda
