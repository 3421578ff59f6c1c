"""The console command `interslice`: the configs of the bundle, with options that are typed and explained."""
