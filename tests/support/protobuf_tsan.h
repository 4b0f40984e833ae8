// Included first in thread-sanitized builds. With __SANITIZE_THREAD__ protobuf's map fields have two members more,
// which Debian's libprotobuf was built without: the same object would have two layouts.
#pragma once

#include <memory>  // needs the macro, and must have been read with it

#pragma push_macro("__SANITIZE_THREAD__")
#undef __SANITIZE_THREAD__
#include <google/protobuf/map_field.h>
#pragma pop_macro("__SANITIZE_THREAD__")
