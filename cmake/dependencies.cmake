# System packages (tools/setup.sh installs them). HDF5 is linked by path: its own CMake package drags in curl.
find_package(Threads REQUIRED)
if(GM_PORTABLE)
  set(CMAKE_FIND_LIBRARY_SUFFIXES .a)
  find_library(YAML_CPP_LIB yaml-cpp REQUIRED)
  add_library(yaml-cpp STATIC IMPORTED)
  set_target_properties(yaml-cpp PROPERTIES IMPORTED_LOCATION ${YAML_CPP_LIB})
else()
  find_package(yaml-cpp REQUIRED)
endif()
find_package(nlohmann_json REQUIRED)
find_package(CLI11 REQUIRED)
find_package(fmt REQUIRED)
add_library(gm_fmt INTERFACE)
if(GM_PORTABLE)
  target_link_libraries(gm_fmt INTERFACE fmt::fmt-header-only)  # Debian has no libfmt.a
else()
  target_link_libraries(gm_fmt INTERFACE fmt::fmt)
endif()

# hdf5::c comes from the serial build of libhdf5-dev.
find_path(HDF5_INCLUDE hdf5.h PATH_SUFFIXES hdf5/serial)
find_library(HDF5_LIB NAMES hdf5_serial hdf5 PATH_SUFFIXES hdf5/serial)
if(NOT HDF5_INCLUDE OR NOT HDF5_LIB)
  message(FATAL_ERROR "HDF5 not found: run tools/setup.sh")
endif()
add_library(gm_hdf5 INTERFACE)
target_include_directories(gm_hdf5 SYSTEM INTERFACE ${HDF5_INCLUDE})
target_link_libraries(gm_hdf5 INTERFACE ${HDF5_LIB})
if(GM_PORTABLE)
  foreach(PART sz aec z)
    find_library(${PART}_LIB ${PART} REQUIRED)
    target_link_libraries(gm_hdf5 INTERFACE ${${PART}_LIB})
  endforeach()
  target_link_libraries(gm_hdf5 INTERFACE ${CMAKE_DL_LIBS})
endif()

# The check sums of PNG files.
if(GM_PORTABLE)
  set(ZLIB_USE_STATIC_LIBS ON)
endif()
find_package(ZLIB REQUIRED)

# Keras's .keras files are ZIP archives.
find_path(MINIZIP_INCLUDE minizip/unzip.h)
find_library(MINIZIP_LIB minizip)
if(NOT MINIZIP_INCLUDE OR NOT MINIZIP_LIB)
  message(FATAL_ERROR "minizip not found: run tools/setup.sh")
endif()

find_path(STB_INCLUDE stb/stb_image.h)
if(NOT STB_INCLUDE)
  message(FATAL_ERROR "stb_image not found: run tools/setup.sh")
endif()

# oneDNN: by path too, because its CMake package wants OpenCL. Version 2 and 3 are both accepted.
set(GM_WITH_ONEDNN OFF)
if(GM_ONEDNN AND NOT GM_PORTABLE)  # shared only, and 40 MB
  find_path(DNNL_INCLUDE dnnl.hpp)
  find_library(DNNL_LIB dnnl)
  if(DNNL_INCLUDE AND DNNL_LIB)
    set(GM_WITH_ONEDNN ON)
  endif()
endif()
message(STATUS "oneDNN: ${GM_WITH_ONEDNN}")

# CFITSIO: FITS tables. Without it the rest works.
set(GM_WITH_CFITSIO OFF)
find_path(CFITSIO_INCLUDE fitsio.h PATH_SUFFIXES cfitsio)
find_library(CFITSIO_LIB cfitsio)
if(CFITSIO_INCLUDE AND CFITSIO_LIB AND NOT GM_PORTABLE)  # its static library wants curl
  set(GM_WITH_CFITSIO ON)
endif()
message(STATUS "CFITSIO: ${GM_WITH_CFITSIO}")

# libcurl and OpenSSL's SHA-256: gm_data fetch. Without them the rest works.
set(GM_WITH_CURL OFF)
if(NOT GM_PORTABLE)
  find_package(CURL QUIET)
  find_package(OpenSSL QUIET COMPONENTS Crypto)
  if(CURL_FOUND AND OPENSSL_FOUND)
    set(GM_WITH_CURL ON)
  endif()
endif()
message(STATUS "libcurl: ${GM_WITH_CURL}")
