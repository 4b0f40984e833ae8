// Where etcd is and how to speak to it. Without a vendor, for config/ and services/.
#pragma once

#include <string>
#include <vector>

#include "base/clock.h"

namespace sluice::state {

struct EtcdOptions {
  std::vector<std::string> endpoints;       // "http://HOST:PORT" or "https://HOST:PORT", all alike
  std::string prefix = "/sluice/default/";  // of all keys; ends with "/"
  // PEM, for https; ca_file empty: the system's authorities; certificate and key: both or neither.
  std::string ca_file, certificate_file, key_file;
  std::string username, password_file;  // both or neither; the file is read at each login, its last newline left out
  Duration timeout = std::chrono::seconds(5);         // of a call, all attempts together
  Duration ping_interval = std::chrono::seconds(10);  // finds a peer that vanished; etcd allows no less than 5 s
};

}  // namespace sluice::state
