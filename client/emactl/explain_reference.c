#include "client/emactl/explain.h"
int explain_reference(const struct emactl *emactl) { (void)emactl; return 0; }
