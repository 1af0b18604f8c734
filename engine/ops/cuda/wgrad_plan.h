// How the weight gradient of one group with few tiles is shared out (wgrad_balanced.cuh): arithmetic alone, for the
// host that plans it and for the blocks that carry it out.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define ASSAY_HOST_DEVICE __host__ __device__
#else
#define ASSAY_HOST_DEVICE
#endif

namespace assay::cuda {

struct WgradPlan {
  int tiles, steps;  // steps along the reduction
  int chunks;        // blocks [0, chunks * tiles): chunk = block / tiles of the first steps - tail steps
  int tail_blocks;   // the blocks after them: equal shares of the last `tail` steps of all tiles, tile by tile
  int tail;          // 0 without tail_blocks

  // Most contributors of a tile: at most two blocks share its tail.
  ASSAY_HOST_DEVICE int slots() const { return chunks + (tail > 0 ? 2 : 0); }
  ASSAY_HOST_DEVICE int blocks() const { return chunks * tiles + tail_blocks; }
  // The tail block whose share has step x of the tails, tile after tile; share j begins at tiles * tail * j /
  // tail_blocks.
  ASSAY_HOST_DEVICE int tail_block(int x) const { return ((x + 1) * tail_blocks - 1) / (tiles * tail); }
  ASSAY_HOST_DEVICE int contributors(int tile) const {
    return tail == 0 ? chunks : chunks + 1 + tail_block((tile + 1) * tail - 1) - tail_block(tile * tail);
  }
};

// Steps [first, first + steps) of a tile, whose sum is number `slot` of the tile's contributors.
struct WgradPiece {
  int tile, first, steps, slot;
};

// The pieces of a block, in order.
class WgradPieces {
 public:
  ASSAY_HOST_DEVICE WgradPieces(const WgradPlan& plan, int block)
      : plan_(plan), block_(block), tail_block_(block - plan.chunks * plan.tiles) {
    if (tail_block_ < 0) return;
    const int all = plan.tiles * plan.tail;
    x_ = all * tail_block_ / plan.tail_blocks;
    end_ = all * (tail_block_ + 1) / plan.tail_blocks;
  }
  ASSAY_HOST_DEVICE bool next(WgradPiece* piece) {
    if (x_ >= end_) return false;
    const int head = plan_.steps - plan_.tail;
    if (tail_block_ < 0) {
      piece->slot = block_ / plan_.tiles;
      piece->tile = block_ % plan_.tiles;
      piece->first = head * piece->slot / plan_.chunks;
      piece->steps = head * (piece->slot + 1) / plan_.chunks - piece->first;
      ++x_;
      return true;
    }
    piece->tile = x_ / plan_.tail;
    const int tile_end = (piece->tile + 1) * plan_.tail;
    piece->first = head + x_ % plan_.tail;
    piece->steps = (end_ < tile_end ? end_ : tile_end) - x_;
    piece->slot = plan_.chunks + tail_block_ - plan_.tail_block(piece->tile * plan_.tail);
    x_ += piece->steps;
    return true;
  }

 private:
  const WgradPlan& plan_;
  int block_, tail_block_;  // tail_block < 0: a block of the head, with one piece
  int x_ = 0, end_ = 1;     // steps of the tails, tile after tile
};

// A plan for all multiprocessors; chunks = 0 where a turnstile does as well: with many tiles or little to add up.
inline WgradPlan plan_wgrad(int64_t tiles, int64_t steps, int multiprocessors) {
  constexpr double piece_cost = 3;  // of writing a piece's sums, in steps
  WgradPlan plan{};
  if (2 * tiles > multiprocessors || steps < 8 * (multiprocessors / tiles)) return plan;
  plan.tiles = static_cast<int>(tiles);
  plan.steps = static_cast<int>(steps);
  plan.chunks = multiprocessors / plan.tiles;
  const int left = multiprocessors % plan.tiles;
  if (left == 0) return plan;
  // As long for a block of the head as for one of the tail: (steps - tail) / chunks + cost = pieces * (tail + cost).
  const double pieces = static_cast<double>(tiles) / left, chunks = plan.chunks;
  const int tail = static_cast<int>((plan.steps / chunks + piece_cost * (1 - pieces)) / (pieces + 1 / chunks));
  if (tail >= 4) plan.tail = tail, plan.tail_blocks = left;
  return plan;
}

}  // namespace assay::cuda
