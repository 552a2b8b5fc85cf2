# What the CUDA backend is made of, for the library (CMakeLists.txt beside this) and for the emulator that the tests run it on
# (tests/cuda). Names in this folder.
set(SESSA_CUDA_KERNELS append elementwise feedback_solve few_fold few_read fused_attention linear paged_read panel_scores panel_solve panel_values sample scan tensor_linear)
# But for what needs CUDA's own runtime and libraries: cuda_ranks, gemm_cublaslt, nccl_communicator, start_kernel.
set(SESSA_CUDA_HOST_SOURCES attention.cc backend.cc context.cc step_graphs.cc feedback.cc launch.cc linear.cc linear_plan.cc paged_reads.cc panel_plan.cc read_plan.cc
  scan.cc shared_tiles.cc step.cc)
