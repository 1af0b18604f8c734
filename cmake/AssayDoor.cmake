# assay_library(NAME DOOR <folder>... [SOURCES <file>... | HEADERS] DEPENDS <target>... [PRIVATE_DEPENDS <target>...])
#
# A target is a folder: it has the folder's .cpp and .cu files, but main.cpp, which is a program's. Where a folder is
# divided between targets, SOURCES lists what this one has of it; HEADERS: it has no sources at all.
#
# Each DOOR is a source folder (from the root of the repository) whose headers the target owns. The target publishes one
# include directory that contains nothing but symbolic links to these headers, not to those of the folders within, so
# `#include "db/run_store.h"` compiles only in targets that (transitively) link assay_db: the architecture's doors are
# enforced by the compiler.
function(assay_library name)
  cmake_parse_arguments(ARG "HEADERS" "" "DOOR;SOURCES;DEPENDS;PRIVATE_DEPENDS" ${ARGN})
  set(doors ${CMAKE_BINARY_DIR}/doors/${name})
  # Anew each time: no link to a header that is gone, and no older build folder's link to a whole folder.
  file(REMOVE_RECURSE ${doors})
  file(MAKE_DIRECTORY ${doors})
  set(sources ${ARG_SOURCES})
  foreach(door ${ARG_DOOR})
    set(folder ${CMAKE_SOURCE_DIR}/${door})
    file(MAKE_DIRECTORY ${doors}/${door})
    file(GLOB headers CONFIGURE_DEPENDS RELATIVE ${folder} ${folder}/*.h ${folder}/*.cuh)
    foreach(header ${headers})
      file(CREATE_LINK ${folder}/${header} ${doors}/${door}/${header} SYMBOLIC)
    endforeach()
    if(NOT ARG_SOURCES AND NOT ARG_HEADERS)
      file(GLOB found CONFIGURE_DEPENDS ${folder}/*.cpp ${folder}/*.cu)
      list(APPEND sources ${found})
    endif()
  endforeach()
  list(FILTER sources EXCLUDE REGEX "/main\\.cpp$")
  if(sources)
    add_library(${name} STATIC ${sources})
    set(scope PUBLIC)
  else()
    add_library(${name} INTERFACE)
    set(scope INTERFACE)
  endif()
  target_include_directories(${name} ${scope} ${doors})
  target_link_libraries(${name} ${scope} ${ARG_DEPENDS})
  if(ARG_PRIVATE_DEPENDS AND sources)
    target_link_libraries(${name} PRIVATE ${ARG_PRIVATE_DEPENDS})
  endif()
endfunction()
