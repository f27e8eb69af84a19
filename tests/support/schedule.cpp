// Prints what the library's packed_model.cpp makes of stacks of layers, for tests/test_spec.py.
//
// A line of input is a stack: the head, whether it reads the template, and the bits of each layer's pattern. A line of
// output: the first dynamic layer, then of each layer whether its template tokens are updated, its template queries
// computed, its template keys read and its search keys read; then the channels of all maps, and those of each branch.

#include <cstdlib>
#include <cstring>
#include <iostream>
#include <sstream>
#include <string>

#include "abi/packed_model.h"

int main() {
  using namespace fermt;
  for (std::string line; std::getline(std::cin, line);) {
    PackedHeader header{};
    std::memcpy(header.magic, "FERMTPK", 8);
    header.version = FERMT_MODEL_VERSION;
    header.dim = header.hidden = 16;
    header.heads = header.patch = header.template_size = header.search_size = 1;
    for (int64_t& width : header.widths) width = 16;
    header.eps = header.scale = header.template_factor = header.search_factor = 1;
    std::istringstream words(line);
    words >> header.head >> header.reweight;
    while (words >> header.patterns[header.depth]) ++header.depth;
    PackedModel model{};
    header.total_bytes = lay_out_sections(header, &model);
    void* data = std::aligned_alloc(64, header.total_bytes);
    std::memset(data, 0, header.total_bytes);
    std::memcpy(data, &header, sizeof header);
    if (const fermt_status status = open_model(data, header.total_bytes, &model)) return status;
    std::cout << model.first_dynamic_layer;
    for (int i = 0; i < header.depth; ++i)
      std::cout << ' ' << model.template_updated(i) << model.template_queries(i) << model.template_keys(i)
                << model.search_keys(i);
    std::cout << ' ' << model.map_channels();
    for (int64_t i = 0; i < model.branches; ++i) std::cout << ' ' << PackedModel::branch_outputs(header.head, i);
    std::cout << '\n';
    std::free(data);
  }
}
