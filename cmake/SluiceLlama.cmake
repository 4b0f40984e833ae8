# The engine library (llama.cpp): target sluice_llama_vendor, linked by engine/llama only.
# scripts/setup builds it into SLUICE_LLAMA_PREFIX, a folder of the cache keyed by version, flags and checksum.
set(SLUICE_LLAMA_PREFIX "" CACHE PATH "Prefix holding include/ and lib/ of llama.cpp (libllama, ggml, llama-common)")
if(NOT EXISTS ${SLUICE_LLAMA_PREFIX}/include/llama.h)
  message(FATAL_ERROR "SLUICE_LLAMA_PREFIX='${SLUICE_LLAMA_PREFIX}' has no include/llama.h: run scripts/setup, "
                      "or pass -DSLUICE_WITH_LLAMA=OFF for the synthetic backend only")
endif()
add_library(sluice_llama_vendor INTERFACE)
target_include_directories(sluice_llama_vendor SYSTEM INTERFACE
  ${SLUICE_LLAMA_PREFIX}/include ${SLUICE_LLAMA_PREFIX}/include/llama-common)
set(libs)
foreach(name llama-common llama-common-base llama ggml ggml-cpu ggml-base vendor-hash cpp-httplib)
  find_library(SLUICE_LIB_${name} ${name} PATHS ${SLUICE_LLAMA_PREFIX}/lib NO_DEFAULT_PATH NO_CACHE)
  if(SLUICE_LIB_${name})
    list(APPEND libs ${SLUICE_LIB_${name}})
  endif()
endforeach()
find_package(OpenMP REQUIRED)
target_link_libraries(sluice_llama_vendor INTERFACE
  -Wl,--start-group ${libs} -Wl,--end-group ${OpenMP_CXX_LIBRARIES} Threads::Threads dl m)
