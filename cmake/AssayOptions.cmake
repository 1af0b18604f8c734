# Compiler flags shared by every target, and what the machine offers.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()
# Checks stay on in release builds: assert() guards invariants, and its cost is nowhere near a GEMM's.
string(REPLACE "-DNDEBUG" "" CMAKE_CXX_FLAGS_RELEASE "${CMAKE_CXX_FLAGS_RELEASE}")
string(REPLACE "-O3" "-O2" CMAKE_CXX_FLAGS_RELEASE "${CMAKE_CXX_FLAGS_RELEASE}")

# Floating point must be the same on every machine and build: no contraction into FMA.
add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Werror;-Wno-missing-field-initializers;-ffp-contract=off>")

find_program(CCACHE ccache)
if(CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
endif()

option(ASSAY_SANITIZE "Build with AddressSanitizer and UndefinedBehaviorSanitizer" OFF)
if(ASSAY_SANITIZE)
  add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g1)
  add_link_options(-fsanitize=address,undefined)
endif()

# The CUDA code is built wherever nvcc is found (13.0 or newer); running it needs a Hopper GPU.
option(ASSAY_CUDA "Build the CUDA kernels when nvcc is found" ON)
find_program(ASSAY_NVCC nvcc HINTS /usr/local/cuda/bin)
if(ASSAY_CUDA AND ASSAY_NVCC AND NOT ASSAY_SANITIZE)
  set(CMAKE_CUDA_COMPILER ${ASSAY_NVCC})
  set(CMAKE_CUDA_ARCHITECTURES 90a-real)
  if(CCACHE)
    set(CMAKE_CUDA_COMPILER_LAUNCHER ${CCACHE})
  endif()
  enable_language(CUDA)
  # CMake 3.25 does not know that this nvcc has C++20.
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
  set(ASSAY_WITH_CUDA ON)
  set(ASSAY_CUDNN_INCLUDE ${CMAKE_SOURCE_DIR}/.deps/cuda/include CACHE PATH "Headers of cuDNN, cudnn-frontend and NVRTC")
  if(NOT EXISTS ${ASSAY_CUDNN_INCLUDE}/cudnn_frontend.h)
    message(FATAL_ERROR "no cuDNN headers in ${ASSAY_CUDNN_INCLUDE}: run ./run setup, or configure with -DASSAY_CUDA=OFF")
  endif()
  message(STATUS "CUDA: nvcc ${CMAKE_CUDA_COMPILER_VERSION} found, the kernels are built for Hopper (sm_90a)")
else()
  set(ASSAY_WITH_CUDA OFF)
  message(STATUS "CUDA: not used (no nvcc, or switched off): only the CPU engine is built")
endif()
