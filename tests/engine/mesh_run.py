"""A run over several devices: `python mesh_run.py FOLDER CACHE DEVICES [PROCESS PROCESSES PORT]`."""

import sys

import jax


def check_that_devices_convolve_for_their_own_members():
    """Left to itself XLA would compute one grouped convolution of all members on every device."""
    from jaxtickets import members

    def step(image, kernel):
        how = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
        return jax.lax.conv_general_dilated(image, kernel, (1, 1), "SAME", **how)

    layout = members.Layout(8, mesh=members.member_mesh(8, jax.devices()))
    images, kernels = (
        members.place(jax.numpy.ones((8, *shape)), layout, "member")
        for shape in ((2, 6, 6, 3), (3, 3, 3, 5))
    )
    for across, grouped in (("vmap", "feature_group_count=2"), ("map", None)):
        stepped = members.over_members(step, (True, True), across, layout.mesh)
        text = jax.jit(stepped).lower(images, kernels).compile().as_text()
        assert "all-gather" not in text
        assert ("feature_group_count" in text) == (grouped is not None)
        assert grouped is None or grouped in text


if __name__ == "__main__":
    folder, cache, devices, *distributed = sys.argv[1:]
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", int(devices))
    jax.config.update("jax_disable_most_optimizations", True)
    if distributed:
        process, processes, port = map(int, distributed)
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(f"localhost:{port}", processes, process)
    import packed_task
    from tiny_task import dst, edst, fit, ltr, pat, shrunk

    from jaxtickets.engine.checkpoints import Checkpoints
    from jaxtickets.masks import Units
    from jaxtickets.members import Layout, default_layout, member_mesh

    if not distributed:
        check_that_devices_convolve_for_their_own_members()
    assert default_layout(2, "gpu", jax.devices()).mesh is not None
    plan = dst(2, collect="best", validation=24)
    mesh = member_mesh(2, jax.devices())
    assert dict(mesh.shape) == {"member": 2, "data": len(jax.devices()) // 2}
    tickets = fit(
        plan,
        out=f"{folder}/dst",
        layout=Layout(2, mesh=mesh, steps_per_call=2),
        checkpoint_every=0 if distributed else 1e9,
    )
    again = fit(
        plan, out=f"{folder}/dst", layout=Layout(2, mesh=mesh)
    )  # finished: every process loads it
    assert len(again) == len(tickets)
    fit(edst(4), layout=Layout(4, "map", 2, mesh)).save(
        f"{folder}/mapped-{distributed[0] if distributed else 0}"
    )
    fit(edst(2), layout=Layout(1, mesh=member_mesh(1, jax.devices()))).save(
        f"{folder}/edst-{distributed[0] if distributed else 0}"
    )
    if not distributed:
        # Children over more rows of the mesh than their parent, stopped among the children and gone on with.
        for name, plan, saves, run, across in (
            ("pat", pat(4), 9, fit, "map"),
            ("ltr", ltr(4), 16, fit, "vmap"),
            ("shrunk", shrunk(4), 9, fit, "map"),
            ("units", dst(4, structure=Units()), 9, fit, "vmap"),
            ("packed", packed_task.packed(4), 8, packed_task.fit, "vmap"),
        ):
            real, left = Checkpoints.save, iter(range(saves - 1, -1, -1))

            def save(self, *args, real=real, left=left):
                real(self, *args)
                if next(left) == 0:
                    raise InterruptedError

            Checkpoints.save = save
            layout = Layout(2, across, mesh=member_mesh(2, jax.devices()))
            try:
                run(plan, out=f"{folder}/{name}", layout=layout, checkpoint_every=0)
                raise AssertionError
            except InterruptedError:
                Checkpoints.save = real
            run(plan, out=f"{folder}/{name}", layout=layout)
