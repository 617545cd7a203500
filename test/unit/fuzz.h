/* What the fuzzers share: how a promise is broken; with -DSTANDALONE a program that takes files. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int	LLVMFuzzerTestOneInput(const uint8_t *, size_t);

static void
check(int good, const char *what)
{
	if (good)
		return;
	fprintf(stderr, "broken promise: %s\n", what);
	abort();
}

#ifdef STANDALONE
int
main(int argc, char **argv)
{
	static uint8_t input[1 << 24];
	int i;

	for (i = 1; i < argc; i++) {
		FILE *f = fopen(argv[i], "rb");

		check(f != NULL, argv[i]);
		LLVMFuzzerTestOneInput(input, fread(input, 1, sizeof(input), f));
		fclose(f);
	}
	printf("%d passed, 0 failed\n", argc - 1);
	return 0;
}
#endif
