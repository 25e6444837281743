"""What a network looks at in a clip: gate maps, Grad-CAM, joints that matter, and pictures of them.

Nothing here changes a number: maps come from hooks that are removed again, whatever happens.
"""
