# The distribution's libraries are linked into the programs, always: what is built on one Linux machine then runs on any
# other with the same or a newer libc (a GPU machine that has none of these packages), and the tests run what is shipped.
# A link still takes a second. What stays outside: libc and libm; what NVIDIA ships, loaded at run time; SentencePiece,
# which only assay-data uses and Debian ships as a shared library.
set(OPENSSL_USE_STATIC_LIBS ON)
set(Protobuf_USE_STATIC_LIBS ON)
set(Boost_USE_STATIC_LIBS ON)
set(ZLIB_USE_STATIC_LIBS ON)
# A build folder may remember shared libraries from before: half of gRPC's as archives and half as those does not work.
foreach(variable OPENSSL_CRYPTO_LIBRARY OPENSSL_SSL_LIBRARY Protobuf_LIBRARY_RELEASE Protobuf_LITE_LIBRARY_RELEASE
        Protobuf_PROTOC_LIBRARY_RELEASE ZLIB_LIBRARY_RELEASE SQLite3_LIBRARY OpenMP_gomp_LIBRARY)
  if("${${variable}}" MATCHES "\\.so$")
    unset(${variable} CACHE)
  endif()
endforeach()

# assay_find_archive(VAR NAME [FOLDER]...): the path of libNAME.a; extra folders go first.
function(assay_find_archive var name)
  find_library(${var} lib${name}.a HINTS ${ARGN})
  if(NOT ${var})
    message(FATAL_ERROR "lib${name}.a not found: ./run setup installs the package that holds it")
  endif()
  mark_as_advanced(${var})
endfunction()

# assay_pkg_archives(TARGET PACKAGE [ARCHIVE]...): PACKAGE and all it needs, as pkg-config --static names them, and
# archives that it does not name.
function(assay_pkg_archives target package)
  pkg_check_modules(${target} REQUIRED ${package})
  set(names ${${target}_STATIC_LIBRARIES})
  list(REMOVE_DUPLICATES names)
  list(FILTER names EXCLUDE REGEX "^(c|m|dl|rt|pthread|atomic|gfortran|gomp)$")  # of the system and the compiler
  set(archives ${ARGN})
  foreach(name ${names})
    assay_find_archive(archive_of_${name} ${name} ${${target}_STATIC_LIBRARY_DIRS})
    list(APPEND archives ${archive_of_${name}})
  endforeach()
  list(JOIN archives "," group)  # archives that need each other are searched until nothing is missing
  add_library(${target} INTERFACE)
  target_include_directories(${target} SYSTEM INTERFACE ${${target}_INCLUDE_DIRS})
  target_link_libraries(${target} INTERFACE "$<LINK_GROUP:RESCAN,${group}>" Threads::Threads ${CMAKE_DL_LIBS})
endfunction()

# find_package(OpenMP) takes the compiler's archive instead of its shared library.
execute_process(COMMAND ${CMAKE_CXX_COMPILER} -print-file-name=libgomp.a OUTPUT_VARIABLE gomp OUTPUT_STRIP_TRAILING_WHITESPACE)
set(OpenMP_gomp_LIBRARY ${gomp} CACHE FILEPATH "OpenMP's run-time library")

assay_find_archive(SQLite3_LIBRARY sqlite3)
assay_find_archive(ASSAY_GRPC_REFLECTION grpc++_reflection)

# AddressSanitizer intercepts the C++ run-time library, which must be the shared one.
if(NOT ASSAY_SANITIZE)
  add_link_options(-static-libstdc++ -static-libgcc)
endif()
add_link_options(-Wl,--gc-sections)
