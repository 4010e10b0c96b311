"""The judge: may a canary have more traffic? Pure functions of counts; README.md has the mathematics."""
