// Calls of any method by its name, without its stub: what a test of every method needs.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "google/protobuf/descriptor.h"

namespace sluice::test {

using Headers = std::vector<std::pair<std::string, std::string>>;

struct RawCall {
  std::string path;  // "/package.Service/Method"
  Headers headers;
  std::vector<std::string> messages = {""};  // serialized; the call is half-closed after them
  bool half_close = true;
  int stop_after = -1;  // cancel after so many answers
};

struct RawReply {
  grpc::Status status;
  std::vector<std::string> answers;  // serialized
};

// Any kind of method: all look alike on the wire. Gives up after two minutes.
RawReply Call(const std::shared_ptr<grpc::Channel>& channel, const RawCall& call);

// The services that the server itself names, by reflection.
std::vector<std::string> ReflectedServices(const std::shared_ptr<grpc::Channel>& channel);

// The methods of those services, from the descriptors that are linked in; a test failure for a service without one.
std::vector<const google::protobuf::MethodDescriptor*> ReflectedMethods(const std::shared_ptr<grpc::Channel>& channel);

std::string PathOf(const google::protobuf::MethodDescriptor& method);

// The reason of the ErrorInfo in the status; empty: none.
std::string ReasonIn(const grpc::Status& status);

}  // namespace sluice::test
