// What several sequences have in their pages at the beginning becomes blocks of
// its own, with rows of all of them as queries (kernels/shared_reads.h; how
// kernels read them: few_read.cu).
#pragma once

#include "kernels/cuda/read_plan.h"

namespace sessa::cuda {

// Of a group of few queries that all have their tile_base: takes the tiles that
// are shared from its blocks, counts the items anew and adds the shared blocks.
// Blocks with a window share nothing.
void ShareTiles(const ReadPlanOptions& options, ReadGroup* group, ReadPlan* plan);

}  // namespace sessa::cuda
