// Muon on CUDA: same arguments as the CPU twin. BF16 products only (full_precision is refused), parameters in f32.
#pragma once

#include <cuda_runtime.h>

#include "engine/ops/cuda/workspace.h"
#include "engine/ops/optimizer.h"

namespace assay::cuda {

// Works through the list in chunks of matrices that fit limits::muon_workspace_bytes. Columns must be multiples of 4.
// Differs from the twin in two ways, both below the products' own rounding: the norm of the equilibrated matrix is
// taken before its entries are rounded, and a square matrix is orthogonalised in transposed form.
void muon(cudaStream_t, const MuonArgs&, Workspace);
// What `muon` takes of its workspace for these stacks.
size_t muon_workspace_bytes(const std::vector<MuonStack>&);

}  // namespace assay::cuda
